"""verl's trainers for streams: checks at every step, metrics by stage, and an orderly end.

Everything that trains is verl's. Added around it: rollout and trainer must agree on token probabilities before an
update is made, failures above a share stop the run with a checkpoint, and a run that did not do its planned steps does
not end well. What is saved and when: alignxplore/rl/checkpoints.py; held-out users and the best model:
alignxplore/rl/validation.py.

A step of the synchronous trainer writes its users' summaries, then trains on them. The asynchronous one trains on the
users of the step before, while those of this step are being written; so nobody waits for the longest answer alone.
Before an update it interrupts what is still being written, and goes on with it under the new weights.
"""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import ray
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from tqdm import tqdm
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.rollout.llm_server import LLMServerClient

from alignxplore.errors import naming
from alignxplore.rl import metrics as report
from alignxplore.rl.agreement import (
    PROBABILITIES,
    check_groups,
    check_probabilities,
    check_versions,
    group_differences,
    summed_up,
    token_differences,
)
from alignxplore.rl.checkpoints import Checkpoints
from alignxplore.rl.settings import STOP, RunStopped, Streaming
from alignxplore.rl.sockets import WeightSender
from alignxplore.rl.step_records import ChainRecord
from alignxplore.rl.updates import share_out, slowest_rank, update_order
from alignxplore.rl.validation import Validation, is_validated

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0  # between two looks at the processes that run the streams
ASKED = "asked to stop"
# Asynchronous steps in a row that may have no token of the newest weights to compare. With few users a step that is
# so in four of ten; the next one that has some shows what was wrong.
UNCOMPARED = 20


class StreamingSteps(PPOTrainer):
    """What both trainers do. `config.streaming` holds what verl's configuration has no place for."""

    lag = 0  # steps between the writing of a user's summaries and their update

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.settings = Streaming.from_config(config.streaming)
        self.out = Path(self.settings.out)
        dtype = config.actor_rollout_ref.rollout.dtype
        self.tolerance = self.settings.tolerance[dtype]
        self.checkpoints = Checkpoints(self, super()._save_checkpoint, self._place_after)
        self.validation = Validation(self.settings, self.checkpoints, dtype)
        self.replay_buffer.poll_interval = self.settings.poll_seconds  # verl's 2 s are most of a small model's step
        # verl waits there until the last user is done, however long that takes and whether or not anybody is at work.
        self.replay_buffer._wait_for_next_poll = functools.partial(self._wait, self.replay_buffer._wait_for_next_poll)
        self._records: list[ChainRecord] = []  # of the users whom this step trains on
        self._ahead: list[ChainRecord] = []  # of users whose turn comes later
        self._places: dict[int, dict] = {}  # by step, the state of the dataloader before that step's users
        self._blind_steps = 0
        self._repeats: dict[str, int] = {}
        self._stop_after_row: str | None = None
        self._began = self._last_look = time.monotonic()

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:  # the policy's worker alone: no stream has a critic
            self.role_worker_mapping[role] = ray.remote(WeightSender)

    def on_init_end(self) -> None:
        super().on_init_end()
        self.start_step = self.checkpoints.saved_step = self._batch_step = self.global_steps
        self.log = report.StepLog(self.out / "metrics.jsonl", self.start_step)
        last_reward = self.validation.resume(self.log.old_rows, self.start_step)
        self.say(f"they are up after {tqdm.format_interval(time.monotonic() - self._began)}")
        if self.start_step:
            # It was validated before its checkpoint was made, unless that was lost, or left out for a stop.
            is_due = is_validated(self.start_step, self.total_training_steps, self.config.trainer.test_freq)
            self.config.trainer.val_before_train = is_due and last_reward is None
            self.say(f"continuing after step {self.start_step} of {self.total_training_steps}")
        if last_reward is not None:
            # The run may have ended between this step's checkpoint and its place as the best.
            self.validation.keep_best(last_reward, self.global_steps)

    def say(self, line: str) -> None:
        """A line for the person who watches (alignxplore/rl/train.py prints it on the console)."""
        path = self.out / "log" / "progress.txt"
        with naming(path), path.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    # ---- before the update: rollouts, and whether the run may go on ----

    def prepare_step(self) -> dict:
        self._step_began = time.monotonic()
        if self._asked_to_stop():
            self._stop(ASKED)
        return super().prepare_step()

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        self._batch_step += 1  # the step that will train on these users
        self._places = {step: place for step, place in self._places.items() if step >= self.global_steps}
        self._places[self._batch_step] = self.train_dataloader.state_dict()
        return super()._next_train_batch(num_prompts)

    def _place_after(self, step: int) -> dict:
        """The state of the dataloader from which a run goes on after `step`: users of later steps, who are being
        written, are fetched again and written anew."""
        return self._places.get(step + 1) or self.train_dataloader.state_dict()

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        try:
            return super()._step_once(metrics, timing_raw, sample_batch_size)
        except RuntimeError as error:
            if "no materializable trajectories" in str(error):  # every row of the step was lost
                self._collect()
                self._stop_without_rows()
            raise

    def _stop_without_rows(self) -> NoReturn:
        self._stop(
            "no group is left to train on: in each of them the rewards differ by less than "
            f"streaming.least_spread={self.settings.least_spread}, or fewer than two were judged"
        )

    def on_sample_end(self) -> None:
        self._collect()
        super().on_sample_end()

    def _collect(self) -> None:
        records, self._repeats = self.agent_loop_manager.drain()
        records, written_at = self._ahead + records, self.global_steps - self.lag
        self._records = [record for record in records if record.step == written_at]
        self._ahead = [record for record in records if record.step > written_at]
        share, reasons = report.losses(self._records)
        if share > self.settings.max_failures:
            cause, count = reasons.most_common(1)[0]
            self._stop(
                f"{100 * share:.0f} % of the rollouts were lost, allowed are "
                f"{100 * self.settings.max_failures:.0f} %; most often ({count} times): {cause}"
            )
        if fault := report.constant_judge(self._records):
            self._stop(fault)

    def _wait(self, verls: Callable, *args: object) -> float:
        """verl's wait for a step's rollouts, which ends the run if they will never come."""
        moment, reason = time.monotonic(), None
        if self._asked_to_stop():
            reason = ASKED
        elif moment - self._step_began > self.settings.step_limit:
            reason = f"its rollouts were not there after streaming.step_limit={self.settings.step_limit:.0f} seconds"
        elif moment - self._last_look > LOOK_SECONDS:
            self._last_look, reason = moment, self.agent_loop_manager.fault()
        if reason:
            self._stop(reason)
        return verls(*args)

    def _asked_to_stop(self) -> bool:
        return (self.out / STOP).exists()

    def _stop(self, reason: str, save: Callable[[], None] | None = None) -> NoReturn:
        """End the run, if possible with a checkpoint: of the weights before this step's update, or what `save`
        saves."""
        try:
            if save:
                save()
            else:
                self.checkpoints.save_before_this_step()
        except Exception:  # whatever has gone with it, the reason is the one to be told
            log.exception("no checkpoint could be saved")
        saved_step = self.checkpoints.saved_step
        remainder = f"the last checkpoint is of step {saved_step}" if saved_step else "there is no checkpoint yet"
        raise RunStopped(f"step {self.global_steps}: {reason}; {remainder}")

    @contextlib.contextmanager
    def _saved_first(self) -> Iterator[None]:
        """A check that fails before the update ends the run with a checkpoint: the weights are as sound as they were
        a step ago, and the alarm may be a false one."""
        try:
            yield
        except RunStopped as fault:
            self._stop(str(fault))

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, **kwargs: object) -> KVBatchMeta:
        if not batch.keys:
            self._stop_without_rows()
        with self._saved_first():
            check_versions(batch.tags, self.global_steps, self.lag)
        rollout, actor = self.config.actor_rollout_ref.rollout, self.config.actor_rollout_ref.actor
        rows = actor.ppo_mini_batch_size * rollout.n
        batch.reorder(update_order(batch.keys, batch.tags, rows))  # verl fills up with likenesses of the first row
        batch = super()._balance_batch(batch, metrics, **kwargs)
        # verl has balanced the whole step over the ranks: which row enters which update would depend on their number,
        # and in each update most ranks would wait for one.
        batch.reorder(update_order(batch.keys, batch.tags, rows))
        lengths = [tag["seq_len"] for tag in batch.tags]
        shares = share_out(lengths, rows, max(self.actor_rollout_wg._dispatch_info["actor"]) + 1)
        batch.reorder([i for share in shares for part in share for i in part])
        metrics["training/slowest_rank"] = slowest_rank(lengths, shares)
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        with self._saved_first():
            self._compare_probabilities(batch, metrics)
        return batch

    def _compare_probabilities(self, batch: KVBatchMeta, metrics: dict) -> None:
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["old_log_probs", "rollout_log_probs"]
        )
        trainer_logs, rollout_logs = (data[name].unbind() for name in ("old_log_probs", "rollout_log_probs"))
        differences = token_differences(batch.tags, trainer_logs, rollout_logs, self.global_steps - 1)
        for name in ("max", "mean"):  # verl's are of all tokens
            metrics.pop(PROBABILITIES + name, None)
        metrics |= summed_up(differences)
        self._blind_steps = 0 if metrics[PROBABILITIES + "tokens"] else self._blind_steps + 1
        if self._blind_steps and self.lag and self._blind_steps <= UNCOMPARED:
            return  # all of it was there before the newest weights were
        check_probabilities(metrics, self.tolerance)
        if self.tolerance.group is not None:
            check_groups(group_differences(batch.keys, differences), self.tolerance.group, metrics)

    # ---- after the update: the step is written down, then saved, then compared with the best ----

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics |= report.stage_metrics(self._records) | {"repeated_requests": sum(self._repeats.values())}
        metrics |= {f"repeated/{kind}": n for kind, n in self._repeats.items()}
        if self.settings.shuffle_rewards:
            metrics["shuffled_rewards"] = 1  # a control is told by its numbers, too
        metrics["timing_s/save_checkpoint"] = self.checkpoints.spent()  # before this row: this step's own comes after
        metrics["training/rows"] = sum(not tag.get("is_padding", False) for tag in batch.tags)
        for name in ("actor/pg_loss", "actor/grad_norm"):
            if not math.isfinite(metrics.get(name, math.nan)):
                remark = f"the last checkpoint is of step {self.checkpoints.saved_step}"
                raise RunStopped(f"step {global_steps}: {name} is {metrics.get(name)}; {remark}")
        numbers = {k: v for k, v in metrics.items() if isinstance(v, (int, float)) or hasattr(v, "item")}
        self.log.append({"step": global_steps} | numbers)
        self._progress(global_steps, metrics)
        if self._stop_after_row:
            self._stop(self._stop_after_row, self.checkpoints.save)
        if self.checkpoints.is_due:
            self.checkpoints.save()
        if "val/reward" in metrics:
            self.validation.keep_best(metrics["val/reward"], global_steps)

    def _progress(self, step: int, metrics: report.Numbers) -> None:
        if step == self.start_step + 1:
            self._first_step_done = time.monotonic()
        step_count = step - self.start_step - 1
        start = self._first_step_done if step_count else self._step_began
        pace = (time.monotonic() - start) / max(1, step_count)
        seconds_left = pace * (self.total_training_steps - step)
        self.say(
            report.progress_line(
                step, self.total_training_steps, metrics, time.monotonic() - self._step_began, seconds_left
            )
        )

    # ---- verl asks for these; the end ----

    def _validate(self) -> report.Numbers:
        """Streams of the held-out users, in the place of verl's validation."""
        step, is_before_training = self.global_steps, self.global_steps in (0, self.start_step)
        if self._asked_to_stop() and step < self.total_training_steps:
            if not step:
                raise RunStopped(f"{ASKED} before the first step; there is no checkpoint yet")
            if is_before_training:
                self._stop(ASKED)
            return {}  # the step is written down and saved, and the run ends before the next
        users = [self.val_dataset[i]["extra_info"] for i in range(len(self.val_dataset))]
        # The step itself is good: it is written down and saved before its validation stops the run.
        metrics, self._stop_after_row = self.validation.run(self.agent_loop_manager, users, step)
        if not self._stop_after_row:
            self.say(f"{f'step {step}' if step else 'before training'}: {self.validation.sentence(metrics)}")
        elif is_before_training:
            self._stop(self._stop_after_row)
        if is_before_training:
            self.log.append({"step": step} | self.log.old_training(step) | metrics)
            self.validation.keep_best(metrics["val/reward"], step)
        return metrics

    def _save_checkpoint(self) -> None:
        """verl asks for it before it validates and before we have looked at the step's numbers: it is made after both,
        so that no checkpoint holds broken weights or a step that metrics.jsonl lacks."""
        self.checkpoints.is_due = True

    def fit(self, agent_loop_manager: object) -> None:
        super().fit(agent_loop_manager)
        last_step = self.global_steps - 1
        if last_step < self.total_training_steps:
            raise RunStopped(
                f"verl stopped after step {last_step} of {self.total_training_steps}; "
                "give trainer.total_epochs room for all steps"
            )


class StreamingTrainer(StreamingSteps, PPOTrainerSync):
    """The synchronous one."""


class AsyncStreamingTrainer(StreamingSteps, PPOTrainerColocateAsync):
    """The asynchronous one. Which users a step trains on is the same again in every run. How much of an answer the
    older weights wrote is not: it depends on time."""

    lag = 1

    def __init__(self, config: DictConfig):
        super().__init__(config)
        # verl's buffer has been made for asynchronous training. From here on the word would make verl save what is
        # being written, with all that is finished, and train on both again after a resume.
        self.trainer_mode = "sync"

    def get_llm_client(self) -> LLMServerClient:
        """verl's plain one: alignxplore/rl/streaming.py itself goes on with what was interrupted."""
        return PPOTrainer.get_llm_client(self)

    def on_train_begin(self) -> None:
        # Sent off as if in the step before, which is what they will be in every other step.
        self.global_steps -= 1
        self._add_batch_to_generate()
        self.global_steps += 1

    def _add_batch_to_generate(self) -> None:
        if self._batch_step < self.total_training_steps:
            super()._add_batch_to_generate()


TRAINERS = {"sync": StreamingTrainer, "colocate_async": AsyncStreamingTrainer}
