"""Items whose attributes are known, so that a statement about one of them is true or not of a history: exact precision
and recall, by which a downstream model's verdicts are calibrated (faithfulness.py).

films    genres and decade as the MovieLens builder writes them (all years before 1970 are one)
world    the values of the simulated world's items
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from alignxplore.baselines import content
from alignxplore.evaluation.statements import about
from alignxplore.records import Interaction
from alignxplore.world.text import item_values

Attributes = Callable[[str], Collection[str]]
STRONG = 2  # times that an attribute must lead, either way, to be missed where it is not told


def _of_film(item: str) -> list[str]:
    names = (name.lower() for name in content.attributes(item))
    return ["pre-1970" if name.endswith("0s") and name < "1970s" else name for name in names]


KNOWN: dict[str, Attributes] = {"films": _of_film, "world": item_values}


def claim(statement: str) -> tuple[str, int] | None:
    """(attribute, 1 liked or -1 disliked) of a statement about one attribute; None of any other."""
    words, sign = about(statement)
    return (next(iter(words)), sign) if len(words) == 1 and sign else None


def speaks(attributes: Attributes, pair: tuple[str, int], interaction: Interaction) -> int:
    """1 where a choice bears a claim out, -1 where it goes against it, 0 where it says nothing of it."""
    name, sign = pair
    return sign * ((name in attributes(interaction.chosen)) - (name in attributes(interaction.rejected or "")))


def tally(attributes: Attributes, history: Iterable[Interaction]) -> Counter[str]:
    """How often each attribute was chosen less how often it was passed over."""
    counts: Counter[str] = Counter()
    for interaction in history:
        counts.update(set(attributes(interaction.chosen)))
        counts.subtract(set(attributes(interaction.rejected or "")))
    return counts


def recalled(attributes: Attributes, history: Sequence[Interaction], statements: Iterable[str]) -> tuple[int, int]:
    """(attributes that lead by `STRONG` and more and are told with their sign, all that lead so)."""
    claims = {pair for text in statements if (pair := claim(text))}
    counts = tally(attributes, history).items()
    leads = {(name, 1 if count > 0 else -1) for name, count in counts if abs(count) >= STRONG}
    return len(leads & claims), len(leads)
