"""What the summaries took: tokens of reasoning and summary, answers that were cut, bad format by reason, seconds.

`scoring.py` writes costs.jsonl, one line a summary; `report/costs.py` makes a table and a plot of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter

from alignxplore.evaluation.benchmarks import Benchmark, SummarySet
from alignxplore.evaluation.rows import rows_of
from alignxplore.evaluation.worth import STRICT
from alignxplore.journal import FAILED

FILE = "costs.jsonl"
SHORTER = "~"  # POLICY~N: the policy that was asked for at most N tokens


@dataclass(frozen=True)
class Cost:
    """What one summary took, all its stages together.

    `tokens` counts what was generated, `reasoning_tokens` all of it but the summaries, `summary_tokens` and `words`
    the last summary, which is the one that is read. `seconds` is the sum over stages of the time from asking to the
    reply; `gpu_seconds` are those of the whole set, shared alike. None: not known, from an earlier version, or nobody
    told of GPUs. `problem` says why it is bad format, `cut` that an answer had all the tokens it was allowed.
    """

    policy: str
    setting: str
    benchmark: str
    seed: int
    record: str
    prompt_tokens: int
    tokens: int
    reasoning_tokens: int | None
    summary_tokens: int | None
    words: int
    seconds: float | None
    cut: bool
    problem: str | None
    gpu_seconds: float | None = None

    __pydantic_config__: ClassVar = STRICT


_COST = TypeAdapter(Cost)


@dataclass(frozen=True)
class Spent:
    """What a set of summaries took as a whole, all runs of the command together: seconds of the clock while summaries
    were being written, how many were, and the GPUs that served the policy (0: not told)."""

    seconds: float = 0.0
    summaries: int = 0
    gpus: int = 0

    @classmethod
    def of(cls, meta: dict | None, run: str, gpus: int) -> "Spent":
        """What earlier runs of the same recipe took."""
        earlier = _by_run(meta).get(run, {})
        return cls(**earlier | {"gpus": gpus or earlier.get("gpus", 0)})

    def more(self, seconds: float, summaries: int) -> "Spent":
        """The same with what another run took."""
        return Spent(round(self.seconds + seconds, 3), self.summaries + summaries, self.gpus)

    @property
    def gpu_seconds(self) -> float | None:
        """GPU-seconds a summary; None where nobody told of GPUs."""
        return self.gpus * self.seconds / self.summaries if self.gpus and self.summaries else None


def _by_run(meta: dict | None) -> dict[str, dict]:
    """What each recipe of a set took, by the id of its run."""
    if meta is None:
        return {}
    return meta.get("spent_before", {}) | ({meta["run"]: meta["spent"]} if "spent" in meta else {})


def spent_before(meta: dict | None, run: str) -> dict[str, dict]:
    """What the other recipes of a set took: whoever comes back to one goes on with its costs, as with its
    summaries."""
    return {other: spent for other, spent in _by_run(meta).items() if other != run}


def costs_of(sets: Iterable[SummarySet], benchmarks: Mapping[str, Benchmark]) -> Iterator[Cost]:
    """The costs of all summaries of these records; those that failed took nothing that is known."""
    for summaries in sets:
        records = (
            {record.id for record in benchmarks[summaries.benchmark].records}
            if summaries.benchmark in benchmarks
            else ()
        )
        gpu_seconds = Spent(**(summaries.meta() or {}).get("spent", {})).gpu_seconds
        for record, row in summaries.by_record(fields=("tokens", "prompt_tokens")).items():
            if record in records and row["status"] not in FAILED:
                yield replace(_cost(summaries, record, row), gpu_seconds=gpu_seconds)


def _total(values: Iterable[float | None]) -> Any:
    """The sum, None if one of the values is not known."""
    values = list(values)
    return None if None in values else sum(value for value in values if value is not None)


def _cost(summary_set: SummarySet, record: str, row: dict) -> Cost:
    stages = row["stages"]
    summaries = [stage.get("summary_tokens") for stage in stages]
    tokens, summary_tokens = sum(stage["tokens"] for stage in stages), _total(summaries)
    seconds = _total(stage.get("seconds") for stage in stages)
    return Cost(
        summary_set.policy,
        summary_set.setting,
        summary_set.benchmark,
        summary_set.seed,
        record,
        sum(stage["prompt_tokens"] for stage in stages),
        tokens,
        # A server may not count tokens.
        None if summary_tokens is None or summary_tokens > tokens else tokens - summary_tokens,
        summaries[-1] if stages else 0,
        len(stages[-1]["summary"].split()) if stages else 0,
        None if seconds is None else round(seconds, 3),
        any(stage.get("cut", False) for stage in stages),
        stages[-1]["problem"] if stages else row["error"],
    )


def read_costs(folder: Path) -> list[Cost]:
    """The costs that evaluate.py left in a folder; none in one that an earlier version wrote.

    Raises:
        RecordError: a line of another form.
    """
    path = folder / FILE
    return list(rows_of(path, _COST.validate_python)) if path.is_file() else []
