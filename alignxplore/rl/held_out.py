"""What held-out users' summaries earned, row by row, and how sure one may be of the means
(alignxplore/rl/validation.py).

OUT/validation.jsonl has one row a validated step and user, and every number below comes from such rows alone:

    {"step": 20, "user": "ann#2", "stages": [
        {"status": "ok", "reward": 0.7, "by_judge": {"judge": [0.7]}, "missing": {"other": "timeout: no answer"}},
        {"status": "bad_format", "reward": 0.0, "by_judge": {}}]}

`by_judge` has a confidence for each choice that the summary is judged by (`streaming.val_targets`). `reward` is null
where a judge of the reward failed, or the engine that writes. What is in bad format counts without any judge. So a
judge that answered about none of the other summaries has no number: it would be one of bad format alone. All rows and
stages of a person are one cluster: more rows of the same people make no interval narrower than it may be.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from alignxplore.judging.judgement import correctness
from alignxplore.records import person_of
from alignxplore.rl.chain import BAD_FORMAT
from alignxplore.rl.metrics import Numbers
from alignxplore.rl.step_records import ChainRecord, RolloutRecord
from alignxplore.statistics import estimate, paired

UNWRITTEN = "unwritten"  # its prompt could not be made to fit
FAILED = "failed"  # the engine's fault
KNOWS_NOTHING = 0.5  # correctness of a judge that was given no summary; eval's protocol `choice` says the same
Score = Callable[[dict], float | None]


def held_out_rows(records: Sequence[ChainRecord], step: int, stages: int) -> list[dict]:
    """The rows of one validation, in the order of `records`."""
    rows = []
    for record in records:
        summary_of_stage = {group.stage: _summary(group.rollouts[0]) for group in record.groups}
        no_summary = {"status": UNWRITTEN, "reward": 0.0, "by_judge": {}, "problem": record.problem}
        if record.failed:
            no_summary |= {"status": FAILED, "reward": None}
        row = {
            "step": step,
            "user": record.user,
            "stages": [summary_of_stage.get(k, no_summary) for k in range(stages)],
        }
        rows.append(row)
    return rows


def _summary(rollout: RolloutRecord) -> dict:
    row = {"status": rollout.status, "reward": rollout.reward, "by_judge": rollout.by_judge}
    return row | ({"missing": rollout.missing} if rollout.missing else {})


def _tells_nothing(summary: dict) -> bool:
    return summary["status"] in (BAD_FORMAT, UNWRITTEN)


def _is_written(summary: dict) -> bool:
    return summary["status"] not in (UNWRITTEN, FAILED)


def _confidences(summary: dict, judge: str) -> list[float]:
    """In each choice; none where the judgement failed. Runs of before there could be several wrote one number."""
    confidences = summary["by_judge"].get(judge, [])
    return confidences if isinstance(confidences, list) else [confidences]


def _is_known(judge: str, summaries: Sequence[dict]) -> bool:
    """Whether a judge answered any question about these summaries, or there was none to be asked."""
    readable = [summary for summary in summaries if _is_written(summary) and not _tells_nothing(summary)]
    return not readable or any(_confidences(summary, judge) for summary in readable)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def reward_of(judge: str | None) -> Score:
    """A summary → the confidence of `judge` in the chosen item (None: the reward, the mean of the reward's judges); 0
    where there is no summary to read, None where the judgement or the engine failed.

    A stage that was never written is none to read, either: a model whose summaries leave no room for the next stage
    must not look better for it.
    """

    def score(summary: dict) -> float | None:
        if _tells_nothing(summary):
            return 0.0
        return summary["reward"] if judge is None else _mean(_confidences(summary, judge))

    return score


def correctness_of(judge: str) -> Score:
    """A summary → its choices' mean of 1, 0.5 (a tie, or no summary to read) or 0, as eval counts; None where the
    judgement failed."""

    def score(summary: dict) -> float | None:
        if _tells_nothing(summary):
            return KNOWS_NOTHING
        return _mean([correctness(p) for p in _confidences(summary, judge)])

    return score


def held_out_metrics(rows: Sequence[dict], start: Sequence[dict], judges: Sequence[str]) -> Numbers:
    """The reward and what each judge says, over all stages and by stage, with 95 % intervals: `val/reward`,
    `val/NAME/reward`, `val/NAME/accuracy`, `val/NAME/stage1/accuracy`, ..., each with `_low` and `_high`, and where
    step 0 was validated with `_change`, `_change_low`, `_change_high`, user by user against it. An interval that one
    person alone cannot have is left out, and so is what a judge says that answered nothing, now or in step 0.

    Args:
        rows: of this validation.
        start: of step 0, in the same order; empty where it was not validated, or where this is step 0.
        judges: names of all that were asked.
    """
    if [row["user"] for row in start] != [row["user"] for row in rows]:
        start = []
    metrics: Numbers = {"val/persons": len({person_of(row["user"]) for row in rows})}
    stages = range(len(rows[0]["stages"])) if rows else range(0)
    for place, places in [("", stages), *((f"stage{k + 1}/", [k]) for k in stages)]:
        summaries, start_summaries = ([row["stages"][k] for row in source for k in places] for source in (rows, start))
        people = [person_of(row["user"]) for row in rows for _ in places]
        if written := [summary["status"] for summary in summaries if _is_written(summary)]:
            metrics[f"val/{place}bad_format"] = written.count(BAD_FORMAT) / len(written)
        metrics |= _measured(f"val/{place}reward", reward_of(None), summaries, start_summaries, people)
        for judge in judges:
            metrics |= _of_judge(judge, f"val/{judge}/{place}", summaries, start_summaries, people)
    return metrics


def _of_judge(
    judge: str, name: str, summaries: Sequence[dict], start_summaries: Sequence[dict], people: Sequence[str]
) -> Numbers:
    """What one judge says of the summaries of one place; only how few it answered, if that is none."""
    if not _is_known(judge, summaries):
        return {f"{name}n": 0, f"{name}coverage": 0.0}
    if not _is_known(judge, start_summaries):
        start_summaries = []  # a watching judge that came later, or was away
    count = sum(reward_of(judge)(summary) is not None for summary in summaries)
    return (
        {f"{name}n": count, f"{name}coverage": count / len(summaries)}
        | _measured(f"{name}reward", reward_of(judge), summaries, start_summaries, people)
        | _measured(f"{name}accuracy", correctness_of(judge), summaries, start_summaries, people)
    )


def _measured(
    name: str, score: Score, summaries: Sequence[dict], start_summaries: Sequence[dict], people: Sequence[str]
) -> Numbers:
    """Mean of a score over summaries, and its change since `start_summaries` (in the same places, or none)."""
    scores = [score(summary) for summary in summaries]
    values_and_persons = [(value, person) for value, person in zip(scores, people) if value is not None]
    mean = estimate([value for value, _ in values_and_persons], [person for _, person in values_and_persons])
    metrics = {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
    if start_summaries:
        pairs = [
            (value, start_value, person)
            for value, start_value, person in zip(scores, map(score, start_summaries), people, strict=True)
            if value is not None and start_value is not None
        ]
        change = paired(
            [v for v, _, _ in pairs], [start_value for _, start_value, _ in pairs], [person for _, _, person in pairs]
        )
        low, high = change.low, change.high
        metrics |= {f"{name}_change": change.difference, f"{name}_change_low": low, f"{name}_change_high": high}
    return {key: float(value) for key, value in metrics.items() if not math.isnan(value)}


def sentence(metrics: Numbers, judges: Sequence[str]) -> str:
    """A validation in words: the reward and each of `judges`, with intervals, and who left questions unanswered."""
    words = [f"validation reward {_with_interval(metrics, 'val/reward')}"]
    for judge in judges:
        coverage = metrics[f"val/{judge}/coverage"]
        share = "" if coverage == 1 else f" ({100 * coverage:.0f} % answered)"
        if f"val/{judge}/reward" in metrics:
            words.append(f"{judge} {_with_interval(metrics, f'val/{judge}/reward')}{share}")
        else:
            words.append(f"{judge} answered nothing")
    return "; ".join(words)


def _with_interval(metrics: Numbers, name: str) -> str:
    text = f"{metrics[name]:.3f}"
    if f"{name}_low" in metrics:
        text += f" [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"
    if f"{name}_change_low" in metrics:
        low, high = metrics[f"{name}_change_low"], metrics[f"{name}_change_high"]
        text += f", {metrics[f'{name}_change']:+.3f} [{low:+.3f}, {high:+.3f}] since step 0"
    return text
