"""The words of the simulated world: how items, preferences and a teacher's reasoning read. Used by `world.py` only.

Twelve values stand in four attributes. The two domains name the same values with different words, and preference
texts use a third vocabulary, so that nothing can be predicted by comparing spellings: what a phrase stands for has to
be learnt, and a summary of someone's films says as much about the news that they will read.
"""

import random
from collections.abc import Mapping, Sequence

ATTRIBUTES: dict[str, tuple[str, str, str]] = {
    "mood": ("humour", "suspense", "tenderness"),
    "subject": ("animals", "machines", "art"),
    "place": ("sea", "city", "mountains"),
    "people": ("families", "teams", "loners"),
}
DOMAINS = ("films", "news")

# value -> domain -> phrases. A mood is the head noun of an item; "" gives the heads of items that show no mood.
_ITEMS: dict[str, dict[str, tuple[str, str, str]]] = {
    "": {"films": ("Film", "Feature", "Picture"), "news": ("Report", "Article", "Bulletin")},
    "humour": {"films": ("Comedy", "Farce", "Parody"), "news": ("Prank", "Blunder", "Satire")},
    "suspense": {"films": ("Thriller", "Whodunit", "Chase"), "news": ("Alarm", "Manhunt", "Standoff")},
    "tenderness": {"films": ("Romance", "Weepie", "Idyll"), "news": ("Tribute", "Reunion", "Portrait")},
    "animals": {"films": ("about wolves", "about a lost dog", "on wild horses"), "news": ("on bees", "about zoo births", "on migrating birds")},
    "machines": {"films": ("about robots", "on racing cars", "about an inventor"), "news": ("on drones", "about battery plants", "on new software")},
    "art": {"films": ("about painters", "on ballet", "about a jazz band"), "news": ("on murals", "about an opera season", "on a gallery")},
    "sea": {"films": ("set on a ship", "on an island", "under the waves"), "news": ("from the harbour", "off the coast", "at the beach")},
    "city": {"films": ("set in Tokyo", "in the subway", "among skyscrapers"), "news": ("from downtown", "at city hall", "in the suburbs")},
    "mountains": {"films": ("set in the Alps", "on a summit", "in a snowy valley"),
                  "news": ("from a ski resort", "near the glacier", "in the highlands")},
    "families": {"films": ("with two sisters", "with a grandmother", "with newlyweds"),
                 "news": ("by local parents", "with schoolchildren", "with twins")},
    "teams": {"films": ("with a rescue crew", "with five friends", "with a platoon"),
              "news": ("by volunteers", "with a trade union", "by researchers")},
    "loners": {"films": ("with a hermit", "with a stranger", "with a drifter"), "news": ("by a lone farmer", "with one witness", "by a widow")},
}

# value -> names in preference texts.
_NAMES: dict[str, tuple[str, str]] = {
    "humour": ("humour", "jokes"), "suspense": ("suspense", "danger"), "tenderness": ("tenderness", "affection"),
    "animals": ("animals", "wildlife"), "machines": ("machines", "technology"), "art": ("art", "culture"),
    "sea": ("water", "seaside places"), "city": ("cities", "urban places"), "mountains": ("mountains", "alpine places"),
    "families": ("families", "relatives"), "teams": ("teams", "groups"), "loners": ("loners", "solitude"),
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
    """One sentence an attribute, the strong ones first; what is liked or what is disliked may come first in it."""
    if not statements:
        return rng.choice(NO_PREFERENCES)
    sentences = []
    for liked, disliked, strength in sorted(statements, key=lambda s: (-s[2], rng.random())):
        clauses = []
        for value, polarity in ((liked, 1), (disliked, -1)):
            verb = rng.choices(_VERBS[polarity, strength], PHRASINGS[phrasing])[0]
            clauses.append(f"{verb} {rng.choice(_NAMES[value])}")
        if rng.random() < 0.5:
            clauses.reverse()
        sentence = f"{clauses[0]} {rng.choice(('and', 'but'))} {clauses[1]}."
        sentences.append(sentence[0].upper() + sentence[1:])
    return " ".join(sentences)


def reasoning_text(tally: Mapping[str, int], rng: random.Random) -> str:
    """What the choices show, attribute by attribute, from counts (value -> times chosen minus times passed over)."""
    findings = []
    for values in ATTRIBUTES.values():
        most, least = max(values, key=lambda v: tally.get(v, 0)), min(values, key=lambda v: tally.get(v, 0))
        margin = tally.get(most, 0) - tally.get(least, 0)
        if margin >= 2:
            findings.append(f"{_NAMES[most][0]} {'far ' if margin >= 4 else ''}above {_NAMES[least][0]}")
    return f"{rng.choice(('Seen', 'Counted', 'Evidence'))}: " + (", ".join(findings) or "no pattern") + "."
