"""Sentences of Markdown texts and of help texts, and how many words they have."""

import re
from collections.abc import Iterator

MOST = 25  # words of a sentence
_LEFT_OUT = re.compile(r"^```.*?^```|<!--.*?-->|^    (?![-*])[^\n]*$", re.MULTILINE | re.DOTALL)
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


def words(sentence: str) -> int:
    """Words; a link counts its text, code one, an interval none."""
    plain = re.sub(r"\]\([^)]*\)", "]", sentence)
    plain = re.sub(r"`[^`]*`", "code", plain)
    plain = re.sub(r"\[[-−+\d., %]+\]", "", plain)
    return sum(bool(re.search(r"\w", word)) for word in plain.split())


def long_ones(text: str) -> list[str]:
    """Those with more than `MOST` words, each with their number."""
    return [f"{words(one)}: {one}" for one in sentences(text) if words(one) > MOST]
