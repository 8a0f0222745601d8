"""MkDocs' hooks: what the built documentation has beside the files of docs/ (mkdocs.yml names this file).

Pages of the repository (READMEs and the like) become pages of the site, in `repository/`, with the pictures that they
show. Links from one to the other are followed as on a code host. A line `<!-- made: NAME -->` is replaced by what the
code says: all commands with their options, all metrics.
"""

import os
import posixpath
import re
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from alignxplore.environment import ROOT
from alignxplore.guide.commands import options_page
from alignxplore.guide.measured import metrics_page
from alignxplore.guide.messages import messages_page

MADE: dict[str, Callable[[], str]] = {"options": options_page, "metrics": metrics_page, "messages": messages_page}
PLACE = "repository"  # of the repository's pages in the site
_MADE = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_ITEM = re.compile(r"([-*+]|\d+\.) ")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """The repository's pages and pictures, beside those of docs/."""
    from mkdocs.structure.files import File  # only where the site is built

    for name in tracked():
        path = ROOT / name
        if path.suffix in (".md", ".png", ".svg") and not name.startswith(("docs/", "data/")):
            files.append(File.generated(config, f"{PLACE}/{name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """What is made stands where it was announced, links reach pages in their places, and lists hold what is theirs."""
    markdown = nested(_MADE.sub(lambda match: MADE[match[1]](), markdown))
    parts = _CODE.split(markdown)
    return "".join(part if place % 2 else relinked(part, page.file.src_uri) for place, part in enumerate(parts))


def nested(markdown: str) -> str:
    """Lists as Python-Markdown wants them: what belongs to an item is indented by 4 a level, and a blank line stands
    before the next item. Code hosts take 2 or 3, and no line. Else items run together in one paragraph."""
    lines, is_in_list, fence_shift, was_blank, is_loose = list[str](), False, None, True, False
    for line in markdown.split("\n"):
        text = line.lstrip(" ")
        depth = len(line) - len(text)
        shift = depth // 2 * 4 - depth if is_in_list and text else 0
        if fence_shift is not None:
            shift = fence_shift if text else 0
            fence_shift = None if text.startswith("```") else fence_shift
        elif text.startswith("```"):
            fence_shift = shift
        elif _ITEM.match(text) and (is_in_list or depth < 4):  # deeper ones outside of a list are code
            shift = depth // 2 * 4 - depth
            lines += [""] * (is_in_list and is_loose and not was_blank)
            is_in_list, is_loose = True, False
        elif text and not depth and was_blank:
            is_in_list, shift = False, 0
        is_loose |= not text
        was_blank = not text
        lines.append(" " * shift + line)
    return "\n".join(lines)


def relinked(text: str, page: str) -> str:
    """The links of a page of the site. Those to folders and to files that are no pages lose their target."""

    def moved(match: re.Match[str]) -> str:
        target, hash_, anchor = match[1].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[1]
        is_copy = page.startswith(f"{PLACE}/")
        source = page.removeprefix(f"{PLACE}/") if is_copy else f"docs/{page}"
        destination = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if (ROOT / destination).is_dir():
            destination = f"{destination}/README.md"
        return os.path.relpath(_place(destination), posixpath.dirname(page)) + hash_ + anchor

    return _LINK.sub(moved, text)


def _place(name: str) -> str:
    """Where a file of the repository stands in the site."""
    path = PurePosixPath(name)
    return str(path.relative_to("docs")) if path.parts[0] == "docs" else f"{PLACE}/{name}"


def tracked() -> list[str]:
    """Files of the repository; without git, all that there are outside hidden folders."""
    process = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if process.returncode == 0:
        return [name for name in process.stdout.splitlines() if (ROOT / name).is_file()]
    return [str(Path(p).relative_to(ROOT)) for p in ROOT.rglob("*.md") if "/." not in str(p)]
