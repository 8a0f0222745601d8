"""Who can give SFT rows at all, known before any model is asked. Used by `rounds.py`, and by `pipeline.py`, which
counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from alignxplore.history import split_stages
from alignxplore.records import Interaction

LEAST_CHOICES = 9  # three thirds of at least three


def possible_targets(
    places: Sequence[int], signal: dict[int, float], items: Sequence[Interaction], least_signal: float
) -> list[int]:
    """Those of the places whose choice had an alternative, and could be foreseen."""
    return [i for i in places if signal.get(i, 0.0) > least_signal and items[i].rejected is not None]


@dataclass
class Eligibility:
    """Counts over users, taken one by one. `is_scored`: a signal model says which choices could be foreseen."""

    least_signal: float
    min_targets: int
    is_scored: bool
    users: int = 0
    lacks: Counter[str] = field(default_factory=Counter)

    def add(self, items: Sequence[Interaction], signal: dict[int, float]) -> None:
        """One more user, with the choices that the rounds cut in thirds."""
        self.users += 1
        if lack := self._lack(items, signal):
            self.lacks[lack] += 1

    def _lack(self, items: Sequence[Interaction], signal: dict[int, float]) -> str | None:
        if len(items) < LEAST_CHOICES:
            return f"fewer than {LEAST_CHOICES} choices"
        _, second_third, last_third = split_stages(range(len(items)), 3)
        for name, places in (("second", second_third), ("last", last_third)):
            if len(possible_targets(places, signal, items, self.least_signal)) < self.min_targets:
                return f"fewer than {self.min_targets} possible targets in the {name} third of their choices"
        return None

    @property
    def able(self) -> int:
        """Users who lack nothing."""
        return self.users - self.lacks.total()

    @property
    def _reasons(self) -> list[str]:
        return [f"{count:,} {'has' if count == 1 else 'have'} {lack}" for lack, count in self.lacks.most_common()]

    @property
    def _needs(self) -> str:
        above = f" and P above --signal {self.least_signal:g}" if self.is_scored else ""
        return (
            f"at least {LEAST_CHOICES} choices, and in the second and in the last third of them {self.min_targets} "
            f"that had an alternative{above} (--min_targets)"
        )

    def __str__(self) -> str:
        """The counts in words, a line a reason."""
        lines = [f"{self.users:,} users, {self.able:,} of them can give SFT rows"]
        if self.lacks:
            lines += [*(f"  {reason}" for reason in self._reasons), f"  needed: {self._needs}"]
        return "\n".join(lines)

    @property
    def refusal(self) -> str | None:
        """Why a run would be in vain; None: somebody can give rows."""
        if not self.users:
            return "no users"
        if self.able:
            return None
        return f"none of {self.users:,} users can give SFT rows ({'; '.join(self._reasons)}). Each needs {self._needs}"
