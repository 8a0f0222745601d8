"""Sentences of Markdown texts, of their tables and of help texts, and how many words they have."""

import re
from collections.abc import Iterator

MOST = 25  # words of a sentence
_LEFT_OUT = re.compile(r"^```.*?^```|<!--.*?-->|^    (?![-*])[^\n]*$", re.MULTILINE | re.DOTALL)
_BESIDE = 8  # columns: what is indented more goes on with the text beside a name
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |#|\||>))")
_END = re.compile(r"(?<=[.!?:])[)*\"'”]*\s+(?=[\"'“(*`\[]*[A-Z0-9`*])|;\s")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a Markdown text: no code, no tables, no headings; what stands in a list is one by itself. A
    semicolon ends one, and so does a colon before a capital."""
    for block in _BLOCK.split(_LEFT_OUT.sub("\n\n", text)):
        block = " ".join(block.split())
        if block.startswith(("|", "#", "![")):
            continue
        yield from (part for part in _END.split(block.lstrip("-* ")) if part)


def cells(text: str) -> Iterator[str]:
    """The sentences of a Markdown text's tables. In a list of fields each field, with what is said of it, is one."""
    for line in _LEFT_OUT.sub("\n\n", text).splitlines():
        if line.strip().startswith("|"):
            for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")):
                parts = [part for sentence in _END.split(cell.strip()) for part in re.split(r", (?=`)", sentence)]
                yield from (part for part in parts if part)


def help_texts(help_text: str) -> list[str]:
    """The texts of a help: paragraphs, and what stands beside a command, an option or a variable. No usage, and no
    default that is added to a text."""
    texts, before = [""], 0
    for line in re.sub(r"\Ausage: .*?(?:\n\n|\Z)", "", help_text, flags=re.DOTALL).splitlines():
        indent, line = len(line) - len(line.lstrip()), line.strip()
        if not line or indent == 0 < before:
            texts.append("")
        if 0 < indent < _BESIDE:
            texts += re.split(r"\s{2,}", line, maxsplit=1)[1:] or [""]
        elif line:
            texts[-1] += f" {line}"
        before = indent
    return [re.sub(r" \(default: [^()]*\)$", "", text) for text in texts]


def words(sentence: str) -> int:
    """Words; a link counts its text, code one, an interval none."""
    plain = re.sub(r"\]\([^)]*\)", "]", sentence)
    plain = re.sub(r"`[^`]*`", "code", plain)
    plain = re.sub(r"\[[-−+\d., %]+\]", "", plain)
    return sum(bool(re.search(r"\w", word)) for word in plain.split())


def long_ones(text: str) -> list[str]:
    """Those with more than `MOST` words, each with their number."""
    return [f"{words(one)}: {one}" for one in (*sentences(text), *cells(text)) if words(one) > MOST]
