"""Text as it arrives: halves of characters, files of another kind, ids that a table program touched, HTML.

Whatever reads what others wrote (`records.py`, the builders in `datasets/`, endpoints) asks here, so that one rule
holds for all. A half of a surrogate pair (text cut by a tool that counts in UTF-16) has no UTF-8 form and no token:
it is replaced by U+FFFD, except in an id, where two users could become one.
"""

import ast
import html
import json
import re
import sys
from typing import Any

LOST = "\ufffd"
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")  # in JSON: one half, or each of both
_COMMA = re.compile(r",\s*([}\]])")
_ID = re.compile(r"(?:\w+_)?(?:id|uid|userid|reviewerID|asin)")

_PACKED = (
    (b"\x1f\x8b", "gzip", "gunzip -c"),
    (b"PK\x03\x04", "zip", "unzip -p"),
    (b"BZh", "bzip2", "bunzip2 -c"),
    (b"\xfd7zXZ", "xz", "unxz -c"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd -c"),
)
_BY_MARK = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_BY_ZEROS = (
    (rb"[^\0]\0\0\0", "UTF-32LE"),
    (rb"[^\0]\0", "UTF-16LE"),
    (rb"\0\0\0[^\0]", "UTF-32BE"),
    (rb"\0", "UTF-16BE"),
)
_ARRAY = "a JSON array, not one object a line; convert it with jq -c '.[]' FILE > NEW"
_LITERALS = (
    "Python literals, as older dumps have them, not JSON; convert them: python -c 'import ast, json, sys; "
    "[print(json.dumps(ast.literal_eval(x))) for x in sys.stdin]' < OLD > NEW"
)


class HalfId(ValueError):
    """Half a character in an id. `field` names it."""

    def __init__(self, field: str):
        super().__init__("half a character (a lone surrogate) in an id, so two could become one; repair the file")
        self.field = field


def mend(value: Any, field: str = "") -> tuple[Any, int]:
    """(a JSON value with U+FFFD for every half character, number of texts in which there was one).

    Raises:
        HalfId: in the text of a field that holds an id.
    """
    if isinstance(value, str):
        if not _HALF.search(value):
            return value, 0
        if _ID.fullmatch(field):
            raise HalfId(field)
        return _HALF.sub(LOST, value), 1
    if isinstance(value, list):
        parts = [mend(x, field) for x in value]
        return [part for part, _ in parts], sum(count for _, count in parts)
    if isinstance(value, dict):
        pairs = [(mend(key), mend(x, key)) for key, x in value.items()]
        return {key: x for (key, _), (x, _) in pairs}, sum(a + b for (_, a), (_, b) in pairs)
    return value, 0


def loads(text: str) -> tuple[Any, int]:
    """`json.loads`, mended (see `mend`); ValueError for all that is no JSON."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python refuses to read so long a number
        raise ValueError(f"a number of more than {sys.get_int_max_str_digits()} digits") from None
    return mend(value) if _ESCAPED.search(text) else (value, 0)


def stand_in(head: bytes) -> str | None:
    """What was put in a file's place, by its first bytes, and what to do; None where nothing shows it."""
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|\?xml)\b", head, re.IGNORECASE):
        return "a web page, not data (a login or an error, perhaps); open it to see what it says and download again"
    return None


def mistaken(head: bytes, in_gzip: bool = False) -> str | None:
    """What a file is instead of text in UTF-8, by its first bytes, and what to do; None where nothing shows it.

    Args:
        in_gzip: the bytes come out of a gzip file.
    """
    for mark, name, command in _PACKED:
        if head.startswith(mark):
            return f"packed by {name}{' inside gzip' if in_gzip else ''}; unpack it with {command} FILE > NEW"
    if head.startswith(b"PAR1"):
        return "a Parquet file under another name; rename it to *.parquet"
    if problem := stand_in(head):
        return problem
    if b"\r" in head[:-1] and b"\n" not in head:
        return "lines that end with CR alone; convert it with tr '\\r' '\\n' < FILE > NEW"
    for mark, name in _BY_MARK:
        if head.startswith(mark):
            return f"{name}, not UTF-8; convert it with iconv -f {name} -t UTF-8 FILE > NEW"
    for pattern, name in _BY_ZEROS:
        if re.match(pattern, head):
            return f"{name}, not UTF-8; convert it with iconv -f {name} -t UTF-8 FILE > NEW"
    return None


def not_packed(head: bytes) -> str | None:
    """What a file named *.gz is instead, and what to do; None for a gzip file."""
    if head.startswith(b"\x1f\x8b"):
        return None
    if not head:
        return "an empty file, not one packed by gzip; the download may have failed"
    return mistaken(head) or "not packed by gzip, though its name ends in .gz; take that ending off"


def not_utf_8(error: UnicodeDecodeError) -> str:
    """Which byte of a line is no UTF-8, and what to do."""
    return (
        f"byte {error.start + 1} is not UTF-8; convert the file from its own encoding, e.g. with "
        "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
    )


def not_json(line: str, is_first: bool) -> str | None:
    """What a line that should hold a JSON object holds instead, and what to do; None where it may be damaged JSON.

    Args:
        is_first: it is the first line of the file that is not blank.
    """
    text = line.strip()
    if text.startswith("{"):
        try:
            json.loads(text, strict=False)
            return (
                "a tab or another control character as it stands inside a text, where JSON wants it escaped; repair it"
            )
        except (ValueError, RecursionError):
            pass
        try:
            json.loads(_COMMA.sub(r"\1", text.rstrip(",")))
            return "not JSON (a comma before a closing bracket or behind the object); take it out"
        except (ValueError, RecursionError):
            pass
        try:
            if isinstance(ast.literal_eval(text), dict):
                return _LITERALS
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    if not is_first or text.startswith('{"'):
        return None
    if text.startswith("["):
        return _ARRAY
    if text == "{":
        return "JSON over several lines, not one object a line; convert it with jq -c . FILE > NEW"
    return None if text.startswith("{") else "not JSON (CSV or plain text?); one JSON object a line is expected"


def no_object(value: Any, is_first: bool) -> str:
    """What to say of a line that holds a JSON value other than an object (`is_first`: see `not_json`)."""
    if is_first and isinstance(value, list) and any(isinstance(x, dict) for x in value):
        return _ARRAY
    return f"expected an object, found {type(value).__name__}"


def table_id(text: str) -> str:
    """An id out of a table: 7.0, which pandas makes of 7 where others are missing, is 7; "" where there is none."""
    if text.isdecimal():
        return text
    text = text.strip()
    if text.lower() in ("nan", "none", "null", "<na>"):
        return ""
    digits, point, zeros = text.partition(".")
    return digits if point and digits.isdecimal() and zeros.strip("0") == "" else text


_INLINE = (
    "a|abbr|acronym|b|bdi|bdo|big|cite|code|dfn|"
    "del|em|font|i|ins|kbd|mark|q|s|samp|small|span|strike|strong|sub|sup|tt|u|var|wbr"
)
_BLOCK = (
    "address|article|aside|audio|blockquote|body|br|button|caption|center|col|colgroup|dd|details|div|dl|dt|fieldset|"
    "figcaption|figure|footer|form|h[1-6]|head|header|hr|html|iframe|img|input|label|legend|li|link|main|map|meta|nav|"
    "noscript|object|ol|option|p|param|picture|pre|section|select|source|summary|svg|table|tbody|td|textarea|tfoot|th|"
    "thead|title|tr|ul|video"
)
_INSIDE = r"""(?:\s(?:"[^"<]*"|'[^'<]*'|[^<>"'])*|\s[^<>]*)?/?>"""
_HIDDEN = re.compile(
    r"<!--(?:(?!<!--).)*?-->|<(script|style)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_APART = re.compile(rf"</?(?:{_BLOCK}){_INSIDE}", re.IGNORECASE)
_WITHIN = re.compile(rf"</?(?:{_INLINE}){_INSIDE}", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")


def words_of(text: str) -> str:
    """A text with each run of white space as one blank: texts that differ in nothing else are one to every reader. One
    that is so already is given back itself."""
    words = " ".join(text.split())
    return text if words == text else words


def plain(text: str) -> str:
    """A text without HTML: tags and comments taken out, entities written as characters. A text that holds none stays
    as it is, white space included. "<3", "a < b" and tags that are none of HTML's are no markup."""
    if "<" not in text and "&" not in text:
        return text
    result = text
    for _ in range(3):  # some texts were escaped twice
        bare_text = _WITHIN.sub("", _APART.sub(" ", _HIDDEN.sub(" ", result)))
        previous, result = result, _ENTITY.sub(lambda match: html.unescape(match.group()), bare_text)
        if result == previous:
            break
    return text if result == text else " ".join(result.split())
