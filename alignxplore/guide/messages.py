"""What a script may say when it stops, read from the code: the list on the page "Faults and messages"."""

import ast
from collections.abc import Iterator
from pathlib import Path

from alignxplore.environment import ROOT


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """(line, sentence) of each error that a module raises with words of its own; what is filled in is "…"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        error_class = node.exc.func.id if isinstance(node.exc.func, ast.Name) else ""
        if error_class.endswith("Error") and len(text := _text(node.exc.args[0])) > 10:
            yield node.lineno, text


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def messages_page() -> str:
    """All of them, module by module."""
    lines = []
    for path in sorted((ROOT / "alignxplore").rglob("*.py")):
        if sentences := [text for _, text in messages(path)]:
            lines += [f"### `{path.relative_to(ROOT)}`", "", "```text", *dict.fromkeys(sentences), "```", ""]
    return "\n".join(lines)
