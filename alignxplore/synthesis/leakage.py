"""Does a text name the pair that its author was hinted at? Used by `rounds.py` on what a teacher has merged.

A draft is written with a future pair in view, and the policy that learns from the merge will never see that pair. The
templates ask for silence about it; whether a teacher kept it is looked up here.
"""

import re
from collections.abc import Iterable
from itertools import chain

from alignxplore.prompts import break_markup
from alignxplore.records import Interaction

LETTERED = re.compile(r"\b(?i:items?|options?) [\"'“‘(*]{0,2}[AB]\b")  # as the hint calls its two items
MOST_WORDS = 8  # of a name: nobody repeats a headline to its end
SURE_WORDS = 3  # so many words are a name in any case; "True Crime" is one as it is written, "true crime" a taste
QUOTES = "\"'“”‘’«»*_"
_LABEL = re.compile(r"(?:title|name): *", re.IGNORECASE)
_NEXT_FIELD = re.compile(r", [A-Z][a-z]+: ")  # "Title: Big (1988), Genres: Comedy"
_BRACKETS = re.compile(r" *\(.*")  # a year, an original title
_ARTICLE = re.compile(r", (?:The|A|An)$")  # "Lion King, The"
_NO_SPACES = re.compile("[\u2e80-\u9fff\uac00-\ud7a3]")  # scripts that are written without them


def names_of(item: str) -> list[str]:
    """What an item can be called: its first line, its title with year and without."""
    line = next((line.strip() for line in break_markup(item).splitlines() if line.strip()), "")
    title = _NEXT_FIELD.split(_LABEL.sub("", line, count=1))[0].strip()
    short_title = _ARTICLE.sub("", _BRACKETS.sub("", title)).strip()
    return list(dict.fromkeys(filter(re.compile(r"\w").search, (line, title, short_title))))


def _pattern(name: str) -> re.Pattern[str]:
    """Finds a name: whole words, whatever stands between them; a single word only in quotes, since it may be any."""
    if _NO_SPACES.search(name):
        return re.compile(re.escape(name))
    words = re.findall(r"\w+", name)[:MOST_WORDS]
    pattern = r"\b" + r"[\W_]+".join(map(re.escape, words)) + r"\b"
    if len(words) == 1:
        return re.compile(f"[{QUOTES}]{pattern}[{QUOTES}]")
    return re.compile(pattern, re.IGNORECASE if len(words) >= SURE_WORDS else 0)


def named(text: str, hints: Iterable[Interaction], prompt: str) -> list[str]:
    """What `text` says of the hinted pairs, as it says it; empty where it names none of them.

    Args:
        text: reasoning and summary.
        hints: the pairs that were in view.
        prompt: what the policy is shown: whatever it names itself may be named.
    """
    names = dict.fromkeys(chain.from_iterable(names_of(item) for pair in hints for item in pair.items))
    patterns = [LETTERED, *map(_pattern, names)]
    mentions = [match[0] for pattern in patterns if (match := pattern.search(text)) and not pattern.search(prompt)]
    return list(dict.fromkeys(mentions))
