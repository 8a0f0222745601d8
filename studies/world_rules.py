"""What a text can carry in the simulated world: rules that read the same history, from signs to Bayes' rule.

    python studies/world_rules.py --seed 1

Each rule adds up what it knows of an item's values. `signs`: of each attribute which of its two values was chosen more
often. `two levels`: whether by much, too, which is all that the policy's reasoning says. `much from seven`: the same
where much begins later. `counts`: how often. The ideal reader knows how the world is made. No model takes part: it is
about what a perfect text of each kind brings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignxplore.command import option, run
from alignxplore.errors import at_least_one
from alignxplore.evaluation.report.tables import Table, markdown
from alignxplore.world.files import HISTORY, benchmark
from alignxplore.world.reader import foresee
from alignxplore.world.text import ATTRIBUTES, MUCH
from alignxplore.world.users import Choice, Values, tally

LATER = 7  # of 2 to 8 what foresees the users of seeds 1 and 2 best
Rule = Callable[[int], float]  # how often one value of an attribute was chosen more than the other → its weight


@dataclass(kw_only=True)
class RulesOptions:
    """Whose choices are foreseen."""

    seed: int = option("seed of the world", 1)
    users: int = option("users of its test", 600)

    def __post_init__(self) -> None:
        at_least_one(self, "users")


def _sign(lead: int) -> int:
    return (lead > 0) - (lead < 0)


RULES: dict[str, Rule] = {
    "signs": _sign,
    "two levels": lambda lead: _sign(lead) * (2 if abs(lead) >= MUCH else 1),
    "much from seven": lambda lead: _sign(lead) * (2 if abs(lead) >= LATER else 1),
    "counts": lambda lead: lead,
}


def preference(rule: Rule, history: Sequence[Choice], item: Values) -> float:
    """How well an item suits what a rule has read."""
    counts = tally(list(history))
    return sum(
        rule(counts.get(first, 0) - counts.get(second, 0))
        * ((item.get(attribute) == first) - (item.get(attribute) == second))
        for attribute, (first, second) in ATTRIBUTES.items()
    )


def right(rule: Rule, choices: Sequence[Choice]) -> float:
    """Whether a rule foresees the last of a user's choices: 1, 0, or one half where it cannot tell."""
    *history, target = choices
    lead = preference(rule, history, target.chosen) - preference(rule, history, target.rejected)
    return (1 + _sign(round(lead))) / 2


def foreseen(options: RulesOptions) -> str:
    """The table of all rules and of the ideal reader."""
    users = [choices for _, choices in benchmark(options.seed, "test", "films", options.users)]
    scores = {name: [right(rule, choices) for choices in users] for name, rule in RULES.items()}
    read = [foresee(choices[:-1], HISTORY // 2, choices[-1]) for choices in users]
    scores["ideal reader"] = [0.5 if abs(p - 0.5) < 1e-9 else float(p > 0.5) for p in read]
    body = [[name, str(len(users)), f"{100 * sum(row) / len(row):.1f}"] for name, row in scores.items()]
    return markdown(Table("rules", f"Films of world {options.seed}", ["rule", "users", "right %"], body))


if __name__ == "__main__":
    run(foreseen, RulesOptions, __doc__)
