"""What a run says about itself: records of chains, metrics per stage, metrics.jsonl and the progress line.

OUT/metrics.jsonl         one line a step: {"step": 12, "stage1/reward": 0.61, "training/rollout_probs_diff_max": ...}
OUT/samples.jsonl         summaries of a few fixed validation users, each time they are validated
OUT/validation.jsonl      what every validation user's summaries earned (alignxplore/rl/held_out.py)
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from tqdm import tqdm

from alignxplore.errors import naming
from alignxplore.journal import OK
from alignxplore.records import read_jsonl, write_jsonl
from alignxplore.rl.chain import BAD_FORMAT, Chain, Group
from alignxplore.rl.reward import always_the_same, goes_by_place

Numbers = dict[str, float]
# Groups whose judge leans to one letter before it is said that it goes by the place (a group may share one order).
ENOUGH = 16


def chain_record(chain: Chain, step: int, texts: bool = False) -> dict:
    """A chain as plain data, small enough to send for every user of every step (with `texts`: what was written,
    too)."""
    return {
        "user": chain.user,
        "step": step,
        "problem": chain.problem,
        "lost": chain.lost,
        "seconds": chain.seconds,
        "groups": [_group_record(group, texts) for group in chain.groups],
        "baselines": [reward.value for reward in chain.baseline_rewards],
    }


def _group_record(group: Group, texts: bool) -> dict:
    rollouts = []
    for r in group.rollouts:
        row: dict[str, Any] = {
            "status": r.status,
            "total": r.total,
            "tokens": len(r.generation.ids),
            "began": r.began,
            "written": r.written,
            "judged": r.judged,
            "reward": 0.0 if r.status == BAD_FORMAT else None,
        }
        if r.reward:
            row |= {
                "reward": r.reward.value,
                "by_judge": r.reward.by_judge,
                "letter_a": r.reward.letter_a,
                "missing": r.reward.missing,
                "judge_seconds": r.reward.seconds,
                "error": r.reward.error,
            }
        rollouts.append(row | ({"text": r.generation.text} if texts else {}))
    return {
        "stage": group.stage,
        "prompt_tokens": len(group.prompt.ids),
        "dropped": group.prompt.dropped,
        "drawn": group.drawn,
        "drawn_bonus": group.drawn_bonus,
        "rollouts": rollouts,
    }


def failed_record(user: str, step: int, rows: int, error: Exception) -> dict:
    """A chain that the engine could not run; `rows` rollouts are lost, and nothing is known of the policy."""
    return {
        "user": user,
        "step": step,
        "failed": True,
        "problem": f"{type(error).__name__}: {error}"[:500],
        "lost": rows,
        "groups": [],
    }


def lost_share(records: Iterable[dict]) -> tuple[float, Counter[str]]:
    """Share of rollouts lost to failures, those that were never written among them (bad format is the policy's own
    outcome and not counted), and why."""
    total = 0
    reasons: Counter[str] = Counter()
    for record in records:
        total += record["lost"]
        if record["lost"]:
            reasons[record["problem"]] += record["lost"]
        for rollout in (r for group in record["groups"] for r in group["rollouts"]):
            total += 1
            if rollout["status"] not in (OK, BAD_FORMAT):
                reasons[f"{rollout['status']}: {rollout.get('error')}"] += 1
    return (sum(reasons.values()) / total if total else 1.0), reasons


def stage_metrics(records: Sequence[dict], prefix: str = "") -> Numbers:
    """Means over the users of one step, by stage: reward (bad format counts 0), confidence by judge, bad format,
    failures, tokens, interactions dropped, groups without signal, the bonus for being drawn, baselines, and seconds
    spent writing and judging; over all stages the tokens written and the lost rollouts, by what became of them.

    Args:
        prefix: "val/" for validation, which trains on none of it.
    """
    groups: dict[int, list[dict]] = defaultdict(list)
    for record in records:
        for group in record["groups"]:
            groups[group["stage"]].append(group)
    metrics: Numbers = {}
    for stage, members in sorted(groups.items()):
        values = _of_groups(members) | _of_judges(members)
        if not prefix:
            values |= _of_returns(members)
        if baselines := [r["baselines"][stage] for r in records if r.get("baselines")]:  # with credit "centered"
            values |= {
                "baseline": _mean(b for b in baselines if b is not None),
                "baselines_failed": sum(b is None for b in baselines),
            }
        metrics |= {f"{prefix}stage{stage + 1}/{name}": value for name, value in values.items() if value is not None}
    rewards = [metrics[key] for stage in groups if (key := f"{prefix}stage{stage + 1}/reward") in metrics]
    metrics |= {f"{prefix}{name}": value for name, value in _of_chains(records).items()}
    return metrics | ({f"{prefix}reward": fmean(rewards)} if rewards else {})


def _of_groups(groups: Sequence[dict]) -> dict[str, float | None]:
    """What the groups of one stage were given, wrote and earned."""
    rollouts = [r for group in groups for r in group["rollouts"]]
    return {
        "reward": _mean(r["reward"] for r in rollouts if r["reward"] is not None),
        "reward_spread": _mean(_spread("reward", group) for group in groups),
        "bad_format": _mean(r["status"] == BAD_FORMAT for r in rollouts),
        "failed": sum(r["status"] not in (OK, BAD_FORMAT) for r in rollouts),
        "tokens": _mean(r["tokens"] for r in rollouts),
        "prompt_tokens": _mean(group["prompt_tokens"] for group in groups),
        "dropped_interactions": _mean(group["dropped"] for group in groups),
        # Groups without any well-formed summary: no past for the next stage, no signal in this one.
        "all_bad_groups": sum(all(r["status"] == BAD_FORMAT for r in g["rollouts"]) for g in groups),
        "drawn_bonus": _mean(g["drawn_bonus"] for g in groups if g["drawn_bonus"] is not None),
        "write_seconds": _mean(r["written"] - r["began"] for r in rollouts),
        "judge_seconds": _mean(r["judge_seconds"] for r in rollouts if r.get("judge_seconds") is not None),
        # From the group's last token to its last reward: what judging adds where nothing hides it.
        "judge_wait_seconds": _mean(
            max(0.0, max(r["judged"] or 0 for r in g["rollouts"]) - max(r["written"] for r in g["rollouts"]))
            for g in groups
        ),
    }


def _of_returns(groups: Sequence[dict]) -> dict[str, float | None]:
    """What GRPO looks at: with credit "paper" the draw alone makes some of the spread. Groups of which fewer than two
    rows were left to train on are dropped."""
    return {
        "return_spread": _mean(_spread("total", group) for group in groups),
        "dropped_groups": sum(all(r["total"] is None for r in g["rollouts"]) for g in groups),
    }


def _of_judges(groups: Sequence[dict]) -> dict[str, float | None]:
    """Each judge's confidence, and how far it leans to the letter A."""
    rollouts = [r for group in groups for r in group["rollouts"]]
    values: dict[str, float | None] = {}
    for judge in sorted({name for r in rollouts for name in r.get("by_judge", {})}):
        values[f"confidence/{judge}"] = _mean(r["by_judge"][judge] for r in rollouts if judge in r.get("by_judge", {}))
        values[f"position_bias/{judge}"] = _mean(
            p - 0.5 for r in rollouts for p in r.get("letter_a", {}).get(judge, ())
        )
    return values


def _of_chains(records: Sequence[dict]) -> Numbers:
    """Over all stages: tokens, and what was lost."""
    rollouts = [r for record in records for group in record["groups"] for r in group["rollouts"]]
    values: Numbers = {
        "generated_tokens": sum(r["tokens"] for r in rollouts),
        "lost_share": lost_share(records)[0],
        "chains_broken": sum(record["problem"] is not None for record in records),
        "chain_seconds": _mean(r["seconds"] for r in records if "seconds" in r) or 0.0,
    }
    lost = Counter(r["status"] for r in rollouts if r["status"] not in (OK, BAD_FORMAT))
    if unwritten := sum(record["lost"] for record in records):
        lost["unwritten"] = unwritten
    return values | {f"lost/{status}": count for status, count in lost.items()}


def validation_metrics(records: Sequence[dict], stages: int) -> Numbers:
    """The same of held-out users, who write one summary a stage. A stage that was never written counts 0, as bad
    format does: a model whose summaries leave no room for the next stage must not look better for it. A user whom the
    engine failed is left out: it is not the policy's fault."""
    metrics, rewards = stage_metrics(records, "val/"), []
    records = [record for record in records if not record.get("failed")]
    for stage in range(stages):
        written = [
            r["reward"] for record in records for g in record["groups"] if g["stage"] == stage for r in g["rollouts"]
        ]
        judged = [reward for reward in written if reward is not None] + [0.0] * (len(records) - len(written))
        if judged:
            rewards.append(fmean(judged))
            metrics[f"val/stage{stage + 1}/reward"] = rewards[-1]
    return metrics | ({"val/reward": fmean(rewards)} if rewards else {})


def constant_judge(records: Sequence[dict]) -> str | None:
    """What is wrong with a judge that leaned to the same letter in every question of a step; None if none did (or too
    few were asked)."""
    letter_a: dict[str, list[float]] = defaultdict(list)
    groups: Counter[str] = Counter()
    for group in (group for record in records for group in record["groups"]):
        for rollout in group["rollouts"]:
            for judge, answers in rollout.get("letter_a", {}).items():
                letter_a[judge] += answers
        groups.update({judge for rollout in group["rollouts"] for judge in rollout.get("letter_a", {})})
    return next(
        (
            always_the_same(name, answers)
            for name, answers in letter_a.items()
            if groups[name] >= ENOUGH and goes_by_place(answers)
        ),
        None,
    )


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return fmean(values) if values else None


def _spread(name: str, group: dict) -> float:
    """Standard deviation of what the group's members have of `name`."""
    values = [r[name] for r in group["rollouts"] if r[name] is not None]
    return pstdev(values) if values else 0.0


def samples(records: Sequence[dict], step: int) -> list[dict]:
    """What validation users' summaries read like, one row a user."""
    return [
        {
            "step": step,
            "user": record["user"],
            "stages": [
                {"text": r["text"], "reward": r["reward"], "status": r["status"]}
                for g in record["groups"]
                for r in g["rollouts"]
            ],
        }
        for record in records
    ]


class StepLog:
    """An append-only JSONL file of steps. A resumed run first takes out the steps that it will do again; `kept` are
    the others.

    Args:
        resumed: the step of the checkpoint that the run starts from (0: none, and everything is done again).
    """

    def __init__(self, path: str | Path, resumed: int):
        self.path = Path(path)
        self.kept: list[dict] = []
        if self.path.exists():
            self.kept = [row for _, row in read_jsonl(self.path) if resumed and row["step"] <= resumed]
            write_jsonl(self.path, self.kept)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")

    def append(self, *rows: dict) -> None:
        """Write a line each; they are in the file when this returns."""
        with naming(self.path):
            self._file.write("".join(json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in rows))
            self._file.flush()
            os.fsync(self._file.fileno())


def progress_line(step: int, steps: int, metrics: Numbers, seconds: float, left: float) -> str:
    """One line a person reads while it runs."""
    rewards = [f"{metrics[k]:.3f}" for k in sorted(metrics) if _is_stage(k, "reward")]
    bad = [metrics[k] for k in sorted(metrics) if _is_stage(k, "bad_format")]
    tokens = [metrics[k] for k in sorted(metrics) if _is_stage(k, "tokens")]
    validated = f"  validation {metrics['val/reward']:.3f}" if "val/reward" in metrics else ""
    return (
        f"step {step}/{steps}  reward {' '.join(rewards)}  bad format {100 * (_mean(bad) or 0):.1f}%  "
        f"tokens {_mean(tokens) or 0:.0f}{validated}  {seconds:.1f} s  {tqdm.format_interval(left)} left"
    )


def _is_stage(key: str, name: str) -> bool:
    return key.startswith("stage") and key.endswith(f"/{name}") and key.count("/") == 1
