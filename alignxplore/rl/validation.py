"""Validation of a run on held-out users, and the best model (alignxplore/rl/trainer.py).

In the place of verl's own, which knows neither stages nor past summaries: each user's stream, one summary a stage.
OUT/best is the model with the highest `val/reward`; OUT/validation.jsonl holds what each user's summaries earned, from
every judge, and OUT/samples.jsonl what a few users' summaries read like.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import ray

from alignxplore.records import read_object
from alignxplore.rl.chain import BAD_FORMAT
from alignxplore.rl.checkpoints import VALIDATION, Checkpoints, publish_model
from alignxplore.rl.held_out import held_out_metrics, held_out_rows, sentence
from alignxplore.rl.metrics import Numbers, StepLog, losses, stage_metrics
from alignxplore.rl.reward import judge_names
from alignxplore.rl.settings import RunStopped, Streaming
from alignxplore.rl.step_records import ChainRecord, samples

ENOUGH = 500  # summaries of a first validation, before it is said of their form that none is good


def is_validated(step: int, last_step: int, every: int) -> bool:
    """Whether verl validates after `step` (1, 2, ...)."""
    return every > 0 and (step == last_step or step % every == 0)


class Streams(Protocol):
    """Runs the streams of held-out users (`alignxplore.rl.streaming.StreamingManager`)."""

    def validate(self, rows: Sequence[dict], step: int) -> list[ChainRecord]: ...


class Validation:
    """Validates, and keeps the best model.

    Args:
        dtype: what the best model is published in.
    """

    def __init__(self, settings: Streaming, checkpoints: Checkpoints, dtype: str):
        self.settings, self.checkpoints, self.dtype = settings, checkpoints, dtype
        self.out = Path(settings.out)
        self.of_reward, self.observers = judge_names(settings.judges), judge_names(settings.val_judges)
        self.best_reward = -math.inf
        self.is_first = True

    def resume(self, old_rows: Sequence[dict], step: int) -> float | None:
        """Go on after `step` (0: at the start), with the rows of metrics.jsonl up to there; returns that step's own
        reward, if it was validated."""
        self.samples = StepLog(self.out / "samples.jsonl", step)
        self.rows = StepLog(self.out / "validation.jsonl", step)
        self.start = [row for row in self.rows.old_rows if not row["step"]]
        reward_of_step = {row["step"]: row["val/reward"] for row in old_rows if "val/reward" in row}
        last_reward = reward_of_step.pop(step, None)
        self.is_first = not any("val/bad_format" in row for row in old_rows)
        self.best_reward = max(reward_of_step.values(), default=-math.inf)
        return last_reward

    def run(self, streams: Streams, users: Sequence[dict], step: int) -> tuple[Numbers, str | None]:
        """Metrics of the model after `step`, and why the run must stop for them if it must: the step itself is good
        and has yet to be saved.

        Raises:
            RunStopped: before the first step.
        """
        records: list[ChainRecord] = []
        try:
            records = streams.validate(users, step)
            self.samples.append(*samples(records[: self.settings.samples], step))
            fault = self._fault(records)
        except ray.exceptions.GetTimeoutError:
            fault = f"it was not done after streaming.step_limit={self.settings.step_limit:.0f} seconds"
        except ray.exceptions.RayError as error:
            fault = f"it came to no end: {' '.join(str(error).split())[:300]}"
        self.is_first = False
        if fault:
            fault = f"validation at step {step}: {fault}"
            if not step:
                raise RunStopped(fault)
        if not records:
            return {}, fault
        rows = held_out_rows(records, step, self.settings.stages)
        metrics = stage_metrics(records, "val/")
        if not fault:  # it would be of the few that were left: no model may become the best by it, even after a resume
            metrics |= held_out_metrics(rows, self.start, self.of_reward + self.observers)
        self.rows.append(*rows)
        if not step:
            self.start = rows
        return metrics, fault

    def _fault(self, records: Sequence[ChainRecord]) -> str | None:
        """Why a run whose held-out users wrote this must not go on; None where it may."""
        share, reasons = losses(records)
        if share > self.settings.max_failures:
            return f"{100 * share:.0f} % of the rollouts were lost: {reasons.most_common(1)[0][0]}"
        statuses = [r.status for record in records for r in record.rollouts]
        if self.is_first and len(statuses) >= ENOUGH and set(statuses) == {BAD_FORMAT}:
            return (
                f"all {len(statuses)} summaries are in bad format, and a group without a well-formed one teaches "
                "nothing: read samples.jsonl, and start from a model that SFT has taught the form"
            )
        return None

    def sentence(self, metrics: Numbers) -> str:
        """What `run` found, for the person who watches; a single judge of the reward says what the reward says."""
        return sentence(metrics, (self.of_reward if len(self.of_reward) > 1 else []) + self.observers)

    def keep_best(self, reward: float, step: int) -> None:
        """Save and publish the model of this step if it is the best so far."""
        if reward <= self.best_reward:
            return
        self.best_reward = reward
        if not step:
            return  # the model that the run starts from is where it was
        if self.checkpoints.saved_step != step:
            self.checkpoints.save()
        folder, about = self.out / "best", {"step": step, "reward": reward}
        if not (folder / VALIDATION).exists() or read_object(folder / VALIDATION) != about:
            publish_model(self.checkpoints.current(), folder, self.dtype, about)
