"""The words of the simulated world: how items, preferences and a teacher's reasoning read. Used in this folder only.

Eight values stand in four attributes, two opposite ones each. Half of the phrases of an item name a value plainly, the
others allude to it, in other words for films than for news. So what an allusion stands for has to be learnt, and a
summary of someone's films says as much about the news that they will read.
"""

import random
import re
from collections.abc import Mapping, Sequence

ATTRIBUTES: dict[str, tuple[str, str]] = {
    "mood": ("humour", "suspense"),
    "subject": ("animals", "machines"),
    "place": ("sea", "city"),
    "people": ("families", "loners"),
}
DOMAINS = ("films", "news")

# value -> domain -> phrases, the plain one first. A mood is the head noun of an item; "" gives the heads of items that
# show no mood.
_ITEMS: dict[str, dict[str, tuple[str, str, str]]] = {
    "": {"films": ("film", "feature", "picture"), "news": ("report", "article", "bulletin")},
    "humour": {"films": ("humour", "comedy", "farce"), "news": ("humour", "prank", "satire")},
    "suspense": {"films": ("suspense", "thriller", "whodunit"), "news": ("suspense", "manhunt", "standoff")},
    "animals": {
        "films": ("about animals", "about wolves", "on wild horses"),
        "news": ("on animals", "on bees", "about zoo births"),
    },
    "machines": {
        "films": ("about machines", "about robots", "on racing cars"),
        "news": ("on machines", "on drones", "about battery plants"),
    },
    "sea": {
        "films": ("by the sea", "on a ship", "under the waves"),
        "news": ("from the sea", "off the coast", "at the harbour"),
    },
    "city": {
        "films": ("in the city", "in the subway", "among skyscrapers"),
        "news": ("from the city", "at town hall", "in the suburbs"),
    },
    "families": {
        "films": ("with families", "with two sisters", "with a grandmother"),
        "news": ("with families", "by local parents", "with twins"),
    },
    "loners": {
        "films": ("with loners", "with a hermit", "with a drifter"),
        "news": ("with loners", "by a widow", "with one witness"),
    },
}

_PLAIN = 0.5  # share of phrases that name their value

# strength -> verbs for what is liked, and for what is disliked; each is one of two.
_VERBS: dict[int, tuple[tuple[str, str], tuple[str, str]]] = {
    2: (("Loves", "Adores"), ("Hates", "Detests")),
    1: (("Likes", "Enjoys"), ("Dislikes", "Avoids")),
}

# How often each of the two verbs is used. Two people who write about the same taste need not sound alike.
PHRASINGS: dict[str, tuple[int, int]] = {"even": (1, 1), "plain": (3, 1), "vivid": (1, 3)}

NO_PREFERENCES = ("No clear preferences are known.", "Nothing is certain about the tastes.")

MUCH = 4  # times by which one value of an attribute must lead the other to be called much more chosen

# What a part of an item's description says: the value (empty: none) and the words.
Phrase = tuple[str, str]
# What a reader is told of one attribute: (liked value, disliked value, strength 1 or 2).
Statement = tuple[str, str, int]


def item_phrases(values: Mapping[str, str], domain: str, rng: random.Random) -> list[Phrase]:
    """An item that shows `values` (attribute -> value) in words: the mood as its head, the others in any order."""
    mood = values.get("mood", "")
    phrases = [(value, _phrase(value, domain, rng)) for attribute, value in values.items() if attribute != "mood"]
    rng.shuffle(phrases)
    return [(mood, _phrase(mood, domain, rng)), *phrases]


def _phrase(value: str, domain: str, rng: random.Random) -> str:
    plain, *allusions = _ITEMS[value][domain]
    return plain if rng.random() < _PLAIN else rng.choice(allusions)


def item_text(phrases: Sequence[Phrase]) -> str:
    """The short sentence that describes an item."""
    return " ".join(words for _, words in phrases)


_VALUES = {
    words: value for value, domains in _ITEMS.items() if value for phrases in domains.values() for words in phrases
}
_NAMED = re.compile(r"\b(?:" + "|".join(sorted(_VALUES, key=len, reverse=True)) + r")\b")


def item_values(text: str) -> list[str]:
    """The values that an item's description shows (what `item_text` was made from)."""
    return [_VALUES[words] for words in _NAMED.findall(text)]


def summary_statements(text: str) -> list[Statement]:
    """What a summary says of each attribute (the inverse of `summary_text`); sentences of other kinds are passed
    over."""
    statements = {}
    for first, second in ATTRIBUTES.values():
        for liked, disliked in ((first, second), (second, first)):
            for strength, (likes, dislikes) in _VERBS.items():
                if any(f"{verb} {liked}." in text for verb in likes) or any(
                    f"{verb} {disliked}." in text for verb in dislikes
                ):
                    statements[first] = (liked, disliked, strength)
    return list(statements.values())


def summary_text(statements: Sequence[Statement], rng: random.Random, phrasing: str = "even") -> str:
    """One short sentence for each value: first what is liked, then what is disliked, both in the order of the
    attributes."""
    if not statements:
        return rng.choice(NO_PREFERENCES)
    order = [value for pair in ATTRIBUTES.values() for value in pair]
    sentences = []
    for disliked in (0, 1):
        values = [(statement[:2][disliked], statement[2]) for statement in statements]
        for value, strength in sorted(values, key=lambda named: order.index(named[0])):
            verb = rng.choices(_VERBS[strength][disliked], PHRASINGS[phrasing])[0]
            sentences.append(f"{verb} {value}.")
    return " ".join(sentences)


def reasoning_text(tally: Mapping[str, int]) -> str:
    """What the choices show, attribute by attribute, from counts (value -> times chosen minus times passed over)."""
    findings = []
    for attribute, (first, second) in ATTRIBUTES.items():
        lead = tally.get(first, 0) - tally.get(second, 0)
        finding = f"{'much ' if abs(lead) >= MUCH else ''}{first if lead > 0 else second}" if lead else "even"
        findings.append(f"{attribute}: {finding}")
    return "Chosen by " + ", ".join(findings) + "."
