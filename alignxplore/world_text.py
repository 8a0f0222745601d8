"""The words of the simulated world: how items, preferences and a teacher's reasoning read. Used by `world.py` only.

Eight values stand in four attributes, two opposite ones each. The two domains name the same values with different
words, and preference texts use a third vocabulary, so that nothing can be predicted by comparing spellings: what a
phrase stands for has to be learnt, and a summary of someone's films says as much about the news that they will read.
"""

import random
from collections.abc import Mapping, Sequence

ATTRIBUTES: dict[str, tuple[str, str]] = {
    "mood": ("humour", "suspense"),
    "subject": ("animals", "machines"),
    "place": ("sea", "city"),
    "people": ("families", "loners"),
}
DOMAINS = ("films", "news")

# value -> domain -> phrases. A mood is the head noun of an item; "" gives the heads of items that show no mood.
_ITEMS: dict[str, dict[str, tuple[str, ...]]] = {
    "": {"films": ("Film", "Feature", "Picture"), "news": ("Report", "Article", "Bulletin")},
    "humour": {"films": ("Comedy", "Farce", "Parody"), "news": ("Prank", "Blunder", "Satire")},
    "suspense": {"films": ("Thriller", "Whodunit", "Chase"), "news": ("Alarm", "Manhunt", "Standoff")},
    "animals": {
        "films": ("about wolves", "about a lost dog", "on wild horses"),
        "news": ("on bees", "about zoo births", "on migrating birds"),
    },
    "machines": {
        "films": ("about robots", "on racing cars", "about an inventor"),
        "news": ("on drones", "about battery plants", "on new software"),
    },
    "sea": {"films": ("set on a ship", "on an island", "under the waves"), "news": ("from the harbour", "off the coast", "at the beach")},
    "city": {"films": ("set in Tokyo", "in the subway", "among skyscrapers"), "news": ("from downtown", "at city hall", "in the suburbs")},
    "families": {
        "films": ("with two sisters", "with a grandmother", "with newlyweds"),
        "news": ("by local parents", "with schoolchildren", "with twins"),
    },
    "loners": {
        "films": ("with a hermit", "with a stranger", "with a drifter"),
        "news": ("by a lone farmer", "with one witness", "by a widow"),
    },
}

# value -> names in preference texts.
_NAMES: dict[str, tuple[str, str]] = {
    "humour": ("humour", "jokes"),
    "suspense": ("suspense", "danger"),
    "animals": ("animals", "wildlife"),
    "machines": ("machines", "technology"),
    "sea": ("water", "seaside places"),
    "city": ("cities", "urban places"),
    "families": ("families", "relatives"),
    "loners": ("loners", "solitude"),
}

# (polarity, strength) -> verbs of a statement.
_VERBS: dict[tuple[int, int], tuple[str, str, str, str]] = {
    (1, 2): ("loves", "is devoted to", "always wants", "strongly prefers"),
    (1, 1): ("likes", "leans towards", "often enjoys", "slightly prefers"),
    (-1, 2): ("hates", "cannot stand", "always avoids", "strongly rejects"),
    (-1, 1): ("dislikes", "leans away from", "seldom enjoys", "slightly avoids"),
}

# How often each of the four verbs is used. Two people who write about the same taste need not sound alike.
PHRASINGS: dict[str, tuple[int, int, int, int]] = {"even": (1, 1, 1, 1), "plain": (5, 3, 1, 1), "vivid": (1, 1, 3, 5)}

NO_PREFERENCES = ("No clear preferences are known.", "Nothing is certain about the tastes.")

# What a reader is told of one attribute: (liked value, disliked value, strength 1 or 2).
Statement = tuple[str, str, int]


def item_text(values: Mapping[str, str], domain: str, rng: random.Random) -> str:
    """A short sentence that shows `values` (attribute -> value): the mood as its head, the others in any order."""
    head = rng.choice(_ITEMS[values.get("mood", "")][domain])
    parts = [rng.choice(_ITEMS[value][domain]) for attribute, value in values.items() if attribute != "mood"]
    rng.shuffle(parts)
    return " ".join([head, *parts])


def summary_text(statements: Sequence[Statement], rng: random.Random, phrasing: str = "even") -> str:
    """One short sentence an attribute, the strong ones first; each says what is liked or, as often, what is disliked."""
    if not statements:
        return rng.choice(NO_PREFERENCES)
    sentences = []
    for liked, disliked, strength in sorted(statements, key=lambda s: (-s[2], rng.random())):
        polarity, value = rng.choice(((1, liked), (-1, disliked)))
        verb = rng.choices(_VERBS[polarity, strength], PHRASINGS[phrasing])[0]
        sentences.append(f"{verb[0].upper()}{verb[1:]} {rng.choice(_NAMES[value])}.")
    return " ".join(sentences)


def reasoning_text(tally: Mapping[str, int]) -> str:
    """What the choices show, attribute by attribute, from counts (value -> times chosen minus times passed over)."""
    findings = []
    for values in ATTRIBUTES.values():
        first, second = (tally.get(value, 0) for value in values)
        if first != second:
            much = "much more" if abs(first - second) >= 4 else "more"
            findings.append(f"{much} {_NAMES[values[first < second]][0]}")
    return "Chosen: " + (", ".join(findings) or "no pattern") + "."
