"""What a run says about itself: metrics by stage and of the step, metrics.jsonl and the progress line.

OUT/metrics.jsonl         one line a step: {"step": 12, "stage1/reward": 0.61, "training/rollout_probs_diff_max": ...}
OUT/samples.jsonl         summaries of a few fixed validation users, each time they are validated
OUT/validation.jsonl      what every validation user's summaries earned (alignxplore/rl/held_out.py)

A metric is one function, registered by its name: `of_stage` is given the groups of one stage, `of_judge` the summaries
of one stage and a judge's name, `of_step` all chains. One that returns None is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import TypeVar

from tqdm import tqdm

from alignxplore import step_log
from alignxplore.journal import OK
from alignxplore.records import write_jsonl
from alignxplore.rl.chain import BAD_FORMAT
from alignxplore.rl.reward import always_the_same, goes_by_place
from alignxplore.rl.step_records import ChainRecord, GroupRecord, RolloutRecord

Numbers = dict[str, float]
# Groups whose judge leans to one letter before it is said that it goes by the place (a group may share one order).
ENOUGH = 16
OfStage = Callable[[Sequence[GroupRecord]], float | None]
OfJudge = Callable[[Sequence[RolloutRecord], str], float | None]
OfStep = Callable[[Sequence[ChainRecord]], float | None]
F = TypeVar("F", bound=Callable[..., float | None])
STAGE: dict[str, OfStage] = {}
# Validation has no returns, and what its summaries earned is worked out by alignxplore/rl/held_out.py.
TRAINING: dict[str, OfStage] = {}
JUDGE: dict[str, OfJudge] = {}
STEP: dict[str, OfStep] = {}


def _register(function: F, table: dict[str, F], *beside: dict[str, F]) -> F:
    """Enter a function under its name; ValueError where another one has it, there or in the tables beside, whose names
    stand in the same lines. The same function of a module that is read again takes its own place."""
    name = function.__name__
    for entry in (names[name] for names in (table, *beside) if name in names):
        if (entry.__module__, entry.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"there is a metric {name} already, in {entry.__module__}; give this one another name")
    table[name] = function
    return function


def of_stage(function: OfStage) -> OfStage:
    """Register a metric of one stage under the function's name."""
    return _register(function, STAGE, TRAINING)


def of_returns(function: OfStage) -> OfStage:
    """The same, in training alone."""
    return _register(function, TRAINING, STAGE)


def of_judge(function: OfJudge) -> OfJudge:
    """Register a metric of one stage and judge, NAME/judge."""
    return _register(function, JUDGE)


def of_step(function: OfStep) -> OfStep:
    """Register a metric of all stages."""
    return _register(function, STEP)


def _all(groups: Iterable[GroupRecord]) -> list[RolloutRecord]:
    return [rollout for group in groups for rollout in group.rollouts]


@of_returns
def reward(groups: Sequence[GroupRecord]) -> float | None:
    """Mean reward of a summary: bad format counts 0, a failed judgement not at all."""
    return _mean(r.reward for r in _all(groups))


@of_stage
def reward_spread(groups: Sequence[GroupRecord]) -> float | None:
    """Mean standard deviation of rewards within a group."""
    return _mean(_spread(r.reward for r in group.rollouts) for group in groups)


@of_stage
def bad_format(groups: Sequence[GroupRecord]) -> float | None:
    """Share of summaries without exactly one think block, reasoning and a summary."""
    return _mean(float(r.bad_format) for r in _all(groups))


@of_stage
def failed(groups: Sequence[GroupRecord]) -> float | None:
    """Judgements that failed for good."""
    return sum(r.status not in (OK, BAD_FORMAT) for r in _all(groups))


@of_stage
def tokens(groups: Sequence[GroupRecord]) -> float | None:
    """Mean tokens of an answer, reasoning included."""
    return _mean(r.tokens for r in _all(groups))


@of_stage
def prompt_tokens(groups: Sequence[GroupRecord]) -> float | None:
    """Mean tokens of a prompt."""
    return _mean(group.prompt_tokens for group in groups)


@of_stage
def dropped_interactions(groups: Sequence[GroupRecord]) -> float | None:
    """Oldest interactions dropped so that a prompt fits, a group on average."""
    return _mean(group.dropped for group in groups)


@of_stage
def all_bad_groups(groups: Sequence[GroupRecord]) -> float | None:
    """Groups without any well-formed summary: no past for the next stage, no signal in this one."""
    return sum(all(r.bad_format for r in group.rollouts) for group in groups)


@of_stage
def drawn_bonus(groups: Sequence[GroupRecord]) -> float | None:
    """What the drawn summary earned above the others by having been drawn (stages before the last)."""
    return _mean(group.drawn_bonus for group in groups)


@of_stage
def write_seconds(groups: Sequence[GroupRecord]) -> float | None:
    """Seconds of writing one summary, on average; with those in which it was stopped for an update."""
    return _mean(r.written - r.began for r in _all(groups))


@of_stage
def judge_seconds(groups: Sequence[GroupRecord]) -> float | None:
    """Seconds of judging one summary, on average."""
    return _mean(r.judge_seconds for r in _all(groups))


@of_stage
def judge_wait_seconds(groups: Sequence[GroupRecord]) -> float | None:
    """From a group's last token to its last reward: what judging adds where nothing hides it."""

    def wait(group: GroupRecord) -> float:
        return max(0.0, max(r.judged or 0 for r in group.rollouts) - max(r.written for r in group.rollouts))

    return _mean(map(wait, groups))


@of_returns
def return_spread(groups: Sequence[GroupRecord]) -> float | None:
    """What GRPO looks at: with credit "paper" the draw alone makes some of it."""
    return _mean(_spread(r.total for r in group.rollouts) for group in groups)


@of_returns
def dropped_groups(groups: Sequence[GroupRecord]) -> float | None:
    """Groups of which fewer than two rows were left to train on."""
    return sum(all(r.total is None for r in group.rollouts) for group in groups)


@of_judge
def confidence(rollouts: Sequence[RolloutRecord], judge: str) -> float | None:
    """Mean confidence of one judge in the chosen item, over well-formed summaries."""
    return _mean(fmean(r.by_judge[judge]) for r in rollouts if judge in r.by_judge)


@of_judge
def position_bias(rollouts: Sequence[RolloutRecord], judge: str) -> float | None:
    """How far it leans to the letter A."""
    return _mean(p - 0.5 for r in rollouts for p in r.letter_a.get(judge, ()))


@of_step
def generated_tokens(records: Sequence[ChainRecord]) -> float | None:
    """Tokens that were written for the step's users."""
    return sum(r.tokens for record in records for r in record.rollouts)


@of_step
def lost_share(records: Sequence[ChainRecord]) -> float | None:
    """Share of rollouts lost to failures; bad format is none."""
    return losses(records)[0]


@of_step
def chains_broken(records: Sequence[ChainRecord]) -> float | None:
    """Users whose stream ended early."""
    return sum(record.problem is not None for record in records)


@of_step
def chain_seconds(records: Sequence[ChainRecord]) -> float | None:
    """Seconds of one user's stream, on average; with those in which it was stopped for an update."""
    return _mean(record.seconds for record in records) or 0.0


def losses(records: Iterable[ChainRecord]) -> tuple[float, Counter[str]]:
    """Share of rollouts lost to failures, those that were never written among them (bad format is the policy's own
    outcome and not counted), and why."""
    total = 0
    reasons: Counter[str] = Counter()
    for record in records:
        total += record.lost + len(record.rollouts)
        if record.lost:
            reasons[str(record.problem)] += record.lost
        reasons.update(f"{r.status}: {r.error}" for r in record.rollouts if r.status not in (OK, BAD_FORMAT))
    return (sum(reasons.values()) / total if total else 1.0), reasons


def stage_metrics(records: Sequence[ChainRecord], prefix: str = "") -> Numbers:
    """All registered metrics of the users of one step, by stage and over all of them, and how many rollouts were lost,
    by what became of them.

    Args:
        prefix: "val/" for validation, of which the rewards are left out.
    """
    stages: dict[int, list[GroupRecord]] = defaultdict(list)
    for group in (group for record in records for group in record.groups):
        stages[group.stage].append(group)
    metrics = {f"{prefix}{name}": value for name, value in _known({n: f(records) for n, f in STEP.items()})}
    metrics |= {f"{prefix}lost/{status}": count for status, count in _lost_by_status(records).items()}
    for stage, groups in sorted(stages.items()):
        values = {name: function(groups) for name, function in (STAGE | ({} if prefix else TRAINING)).items()}
        values |= _by_judge(_all(groups)) | _baselines(records, stage)
        metrics |= {f"{prefix}stage{stage + 1}/{name}": value for name, value in _known(values)}
    rewards = [metrics[key] for stage in stages if (key := f"stage{stage + 1}/reward") in metrics]
    return metrics | ({"reward": fmean(rewards)} if rewards else {})


def _known(values: dict[str, float | None]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in values.items() if value is not None]


def _by_judge(rollouts: Sequence[RolloutRecord]) -> dict[str, float | None]:
    judges = sorted({name for r in rollouts for name in r.by_judge})
    return {f"{name}/{judge}": function(rollouts, judge) for name, function in JUDGE.items() for judge in judges}


def _baselines(records: Sequence[ChainRecord], stage: int) -> dict[str, float | None]:
    """With credit "centered": what the judges say of the next item without a summary."""
    baselines = [record.baselines[stage - 1] for record in records if record.baselines] if stage else []
    return {"baseline": _mean(baselines), "baselines_failed": sum(b is None for b in baselines)} if baselines else {}


def _lost_by_status(records: Sequence[ChainRecord]) -> Counter[str]:
    counts = Counter(r.status for record in records for r in record.rollouts if r.status not in (OK, BAD_FORMAT))
    if unwritten := sum(record.lost for record in records):
        counts["unwritten"] = unwritten
    return counts


def constant_judge(records: Sequence[ChainRecord]) -> str | None:
    """What is wrong with a judge that leaned to the same letter in every question of a step; None if none did (or too
    few were asked)."""
    letter_a: dict[str, list[float]] = defaultdict(list)
    groups: Counter[str] = Counter()
    for group in (group for record in records for group in record.groups):
        for rollout in group.rollouts:
            for judge, answers in rollout.letter_a.items():
                letter_a[judge] += answers
        groups.update({judge for rollout in group.rollouts for judge in rollout.letter_a})
    return next(
        (
            always_the_same(name, answers)
            for name, answers in letter_a.items()
            if groups[name] >= ENOUGH and goes_by_place(answers)
        ),
        None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def _spread(values: Iterable[float | None]) -> float:
    """Standard deviation of what a group's members have."""
    numbers = [value for value in values if value is not None]
    return pstdev(numbers) if numbers else 0.0


class StepLog(step_log.StepLog):
    """One of an RL run, in which a step may be validated again. `old_rows` are those of the steps that this run does
    not do again.

    Args:
        last_step: that of the checkpoint that the run starts from (0: none, and everything is done again).
    """

    def __init__(self, path: str | Path, last_step: int):
        super().__init__(path)
        self.old_rows = self.keep_until(last_step or None)
        self.append()  # the file is there from the start

    def old_training(self, step: int) -> dict:
        """What an old row of `step` says of the training, and not of held-out users."""
        rows = [row for row in self.old_rows if row["step"] == step]
        return {name: value for row in rows for name, value in row.items() if not name.startswith("val/")}

    def append(self, *rows: dict) -> None:
        """Write a line each. Of an old step they take the place of all that the file has."""
        steps = {row["step"] for row in rows}
        if any(row["step"] in steps for row in self.old_rows):
            self.old_rows = [*(row for row in self.old_rows if row["step"] not in steps), *rows]
            write_jsonl(self.path, self.old_rows)
        else:
            super().append(*rows)


def progress_line(step: int, steps: int, metrics: Numbers, seconds: float, seconds_left: float) -> str:
    """One line a person reads while it runs."""
    rewards = [f"{metrics[k]:.3f}" for k in sorted(metrics) if _is_stage(k, "reward")]
    bad_shares = [metrics[k] for k in sorted(metrics) if _is_stage(k, "bad_format")]
    tokens = [metrics[k] for k in sorted(metrics) if _is_stage(k, "tokens")]
    validation = f"  validation {metrics['val/reward']:.3f}" if "val/reward" in metrics else ""
    return (
        f"step {step}/{steps}  reward {' '.join(rewards)}  bad format {100 * (_mean(bad_shares) or 0):.1f}%  "
        f"tokens {_mean(tokens) or 0:.0f}{validation}  {seconds:.1f} s  {tqdm.format_interval(seconds_left)} left"
    )


def _is_stage(key: str, name: str) -> bool:
    return key.startswith("stage") and key.endswith(f"/{name}") and key.count("/") == 1
