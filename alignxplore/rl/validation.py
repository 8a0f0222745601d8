"""Validation of a run on held-out users, and the best model (alignxplore/rl/trainer.py).

In the place of verl's own, which knows neither stages nor past summaries: each user's stream, one summary a stage.
OUT/best is the model with the highest `val/reward`; OUT/validation.jsonl holds what each user's summaries earned, from
every judge, and OUT/samples.jsonl what a few users' summaries read like.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import ray

from alignxplore.rl.checkpoints import VALIDATION, Checkpoints, publish_model
from alignxplore.rl.held_out import held_out_metrics, held_out_rows, sentence
from alignxplore.rl.metrics import Numbers, StepLog, lost_share, samples, validation_metrics
from alignxplore.rl.reward import judge_names
from alignxplore.rl.settings import RunStopped, Streaming


class Streams(Protocol):
    """Runs the streams of held-out users (`alignxplore.rl.streaming.StreamingManager`)."""

    def validate(self, rows: Sequence[dict], step: int) -> list[dict]: ...


class Validation:
    """Validates, and keeps the best model.

    Args:
        dtype: what the best model is published in.
    """

    def __init__(self, settings: Streaming, checkpoints: Checkpoints, dtype: str):
        self.settings, self.checkpoints, self.dtype = settings, checkpoints, dtype
        self.out = Path(settings.out)
        self.of_reward, self.watching = judge_names(settings.judges), judge_names(settings.val_judges)
        self.best_reward = -math.inf

    def resume(self, kept: Sequence[dict], step: int) -> float | None:
        """Go on after `step` (0: at the start), with the rows of metrics.jsonl up to there; returns that step's own
        reward, if it was validated."""
        self.samples = StepLog(self.out / "samples.jsonl", step)
        self.rows = StepLog(self.out / "validation.jsonl", step)
        self.start = [row for row in self.rows.kept if not row["step"]]
        validated = {row["step"]: row["val/reward"] for row in kept if "val/reward" in row}
        last = validated.pop(step, None)
        self.best_reward = max(validated.values(), default=-math.inf)
        return last

    def run(self, streams: Streams, users: Sequence[dict], step: int) -> tuple[Numbers, str | None]:
        """Metrics of the model after `step`, and why the run must stop for them if it must.

        Raises:
            RunStopped: before the first step, and where the streams came to no end.
        """
        try:
            records = streams.validate(users, step)
        except ray.exceptions.GetTimeoutError:
            raise RunStopped(
                f"validation at step {step} was not done after "
                f"streaming.step_limit={self.settings.step_limit:.0f} seconds"
            ) from None
        fault, (share, reasons) = None, lost_share(records)
        if share > self.settings.max_failures:
            often = reasons.most_common(1)[0][0]
            fault = f"validation at step {step}: {100 * share:.0f} % of the rollouts were lost: {often}"
            if not step:
                raise RunStopped(fault)
        rows = held_out_rows(records, step, self.settings.stages)
        metrics = validation_metrics(records, self.settings.stages)
        if fault:  # its reward is of the few that were left: no model may become the best by it, now or after a resume
            metrics.pop("val/reward", None)
        else:
            metrics = held_out_metrics(rows, self.start, self.of_reward + self.watching) | metrics
        self.samples.append(*samples(records[: self.settings.samples], step))
        self.rows.append(*rows)
        if not step:
            self.start = rows
        return metrics, fault

    def sentence(self, metrics: Numbers) -> str:
        """What `run` found, for the person who watches; a single judge of the reward says what the reward says."""
        return sentence(metrics, (self.of_reward if len(self.of_reward) > 1 else []) + self.watching)

    def keep_best(self, reward: float, step: int) -> None:
        """Save and publish the model of this step if it is the best so far."""
        if reward <= self.best_reward:
            return
        self.best_reward = reward
        if not step:
            return  # the model that the run starts from is where it was
        if self.checkpoints.saved_step != step:
            self.checkpoints.save()
        best, about = self.out / "best", {"step": step, "reward": reward}
        if not (best / VALIDATION).exists() or json.loads((best / VALIDATION).read_text()) != about:
            publish_model(self.checkpoints.current(), best, self.dtype, about)
