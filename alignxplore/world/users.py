"""The simulated users: what they like, how it changes, and how they choose between two items. Used by `files.py`.

A user has at most one taste an attribute: a liked value, a disliked value (the opposite one) and a strength (2 or 1).
An item shows values of three of the four attributes; its utility is the sum of +strength for what is liked and
-strength for what is disliked. Of two items the user takes the first with probability
`sigmoid(SHARPNESS * (utility_a - utility_b))` (Bradley and Terry). Two users in five change once, between the early
and the late part of their history: one taste turns round or fades away.

Everything is drawn symmetrically: swapping all likes and dislikes gives an equally probable user, and items do not
depend on users. So whatever does not know the user (chance, another user's summary, popularity, text length) is right
in exactly one half of the cases in expectation.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from alignxplore.records import Interaction, hash_seed
from alignxplore.world.text import ATTRIBUTES, Phrase, Statement, item_phrases, item_text, summary_text

SHARPNESS = 1.2
STRENGTHS = ((2, 0.4), (1, 0.4), (0, 0.2))  # strength of a taste and its probability
CHANGING = 0.4  # share of users one of whose tastes changes
SHOWN = 3  # attributes that an item shows

Values = dict[str, str]  # attribute -> value, what an item shows


class Taste(NamedTuple):
    """What a user likes and dislikes in one attribute."""

    liked: str
    disliked: str
    strength: int


Preferences = dict[str, Taste]  # attribute -> taste; attributes that do not matter to the user are absent


@dataclass(frozen=True)
class User:
    """A simulated user: tastes before and after the change (the same where nothing changes)."""

    name: str
    early: Preferences
    late: Preferences


@dataclass(frozen=True)
class Choice:
    """One choice with what stands behind it."""

    interaction: Interaction
    chosen: Values
    rejected: Values
    certainty: float  # probability with which this user takes the item that suits them better
    followed: bool  # whether that is what happened
    phrases: tuple[list[Phrase], list[Phrase]]  # the texts of the chosen and the rejected item in parts


def draw_user(seed: int, split: str, index: int) -> User:
    """User `index` of a split. The name carries the split, so users of two splits are never the same."""
    rng = random.Random(hash_seed("world user", seed, split, index))
    early: Preferences = {}
    while len(early) < 2:  # someone to whom one attribute at most matters is not worth a summary
        early = {}
        for attribute, values in ATTRIBUTES.items():
            liked, disliked = rng.sample(values, 2)
            strength = int(rng.choices(*zip(*STRENGTHS))[0])
            if strength:
                early[attribute] = Taste(liked, disliked, strength)
    late = dict(early)
    if rng.random() < CHANGING:
        attribute = rng.choice(list(early))
        if len(early) > 2 and rng.random() < 0.5:
            del late[attribute]
        else:
            liked, disliked, strength = early[attribute]
            late[attribute] = Taste(disliked, liked, strength)
    return User(f"{split}-{seed}-{index}", early, late)


def utility(preferences: Preferences, values: Mapping[str, str]) -> int:
    """How well an item that shows `values` suits the preferences."""
    return sum(
        taste.strength * ((values.get(attribute) == taste.liked) - (values.get(attribute) == taste.disliked))
        for attribute, taste in preferences.items()
    )


def choice_probability(preferences: Preferences, first: Mapping[str, str], second: Mapping[str, str]) -> float:
    """Probability that the user takes `first` when shown both."""
    return 1 / (1 + math.exp(-SHARPNESS * (utility(preferences, first) - utility(preferences, second))))


def draw_item(rng: random.Random) -> Values:
    """Values of `SHOWN` attributes, all equally likely."""
    attributes = rng.sample(list(ATTRIBUTES), SHOWN)
    return {attribute: rng.choice(ATTRIBUTES[attribute]) for attribute in attributes}


def draw_choice(preferences: Preferences, domain: str, rng: random.Random) -> Choice:
    """One choice between two items that do not suit the user equally well (drawn again until they do not)."""
    while True:
        first, second = draw_item(rng), draw_item(rng)
        probability = choice_probability(preferences, first, second)
        if abs(probability - 0.5) > 1e-9:
            break
    chosen, rejected = (first, second) if rng.random() < probability else (second, first)
    followed = utility(preferences, chosen) > utility(preferences, rejected)
    phrases = item_phrases(chosen, domain, rng), item_phrases(rejected, domain, rng)
    interaction = Interaction(item_text(phrases[0]), item_text(phrases[1]))
    return Choice(interaction, chosen, rejected, max(probability, 1 - probability), followed, phrases)


def draw_stream(user: User, domain: str, length: int, change_at: int, seed: int) -> list[Choice]:
    """A user's choices in one domain, oldest first; from position `change_at` on they follow the late preferences."""
    rng = random.Random(hash_seed("world stream", seed, user.name, domain, length, change_at))
    choices: list[Choice] = []
    while len(choices) < length:
        choice = draw_choice(user.early if len(choices) < change_at else user.late, domain, rng)
        if all(choice.interaction != other.interaction for other in choices):  # an item may be chosen again
            choices.append(choice)
    return choices


def faulty_statements(
    preferences: Preferences, rng: random.Random, error_rate: float, gap_rate: float
) -> list[Statement]:
    """The tastes as statements, with faults on purpose.

    Args:
        error_rate: share of the tastes that are stated the wrong way round (likes and dislikes swapped).
        gap_rate: share of the tastes that are left out. Together at most 1.
    """
    statements: list[Statement] = []
    for liked, disliked, strength in preferences.values():
        fault = rng.random()
        if fault < error_rate:
            statements.append((disliked, liked, strength))
        elif fault >= error_rate + gap_rate:
            statements.append((liked, disliked, strength))
    return statements


def render_summary(
    preferences: Preferences,
    rng: random.Random,
    error_rate: float = 0.0,
    gap_rate: float = 0.0,
    phrasing: str = "even",
) -> str:
    """The preferences as a text, with a share of errors and gaps; `phrasing` as in `text.PHRASINGS`."""
    return summary_text(faulty_statements(preferences, rng, error_rate, gap_rate), rng, phrasing)


def tally(choices: list[Choice], one_sided: bool = False) -> dict[str, int]:
    """Per value how often it was chosen minus how often it was passed over (`one_sided`: only how often it was
    chosen)."""
    counts: dict[str, int] = {}
    for choice in choices:
        for value in choice.chosen.values():
            counts[value] = counts.get(value, 0) + 1
        for value in () if one_sided else choice.rejected.values():
            counts[value] = counts.get(value, 0) - 1
    return counts
