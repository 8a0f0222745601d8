"""verl's synchronous trainer for streams: metrics by stage, checks at every step, validation on held-out users, best
model kept.

Everything that trains is verl's. Added around it: rollout and trainer must agree on token probabilities before an
update is made, failures above a share stop the run with a checkpoint, and a run that did not do its planned steps does
not end well.
"""

import functools
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from pprint import pprint
from types import SimpleNamespace
from typing import NoReturn

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.logging_utils import configure_verl_logging

from alignxplore.rl import metrics as report
from alignxplore.rl.agreement import check_groups, check_probabilities, check_versions, group_differences
from alignxplore.rl.checkpoints import VALIDATION, make_room, publish_model
from alignxplore.rl.credit import stage_weights
from alignxplore.rl.settings import STOP, RunStopped, Streaming
from alignxplore.rl.streaming import StreamingManager, start_actors, update_order

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0  # between two looks at the processes that run the streams
ASKED = "asked to stop"


class StreamingTrainer(PPOTrainerSync):
    """See the module. `config.streaming` holds what verl's configuration has no place for."""

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.settings = Streaming.from_config(config.streaming)
        self.out = Path(self.settings.out)
        self.tolerance = self.settings.tolerance[config.actor_rollout_ref.rollout.dtype]
        self.replay_buffer.poll_interval = (
            self.settings.poll_seconds
        )  # verl's 2 s would be most of a small model's step
        # verl waits there until the last user is done, however long that takes and whether or not anybody is at work.
        self.replay_buffer._wait_for_next_poll = functools.partial(self._wait, self.replay_buffer._wait_for_next_poll)
        self._looked = time.monotonic()
        self.saved_step = -1
        self._save_due, self._save_seconds = False, 0.0
        self._records: list[dict] = []
        self._repeated: dict[str, int] = {}
        self._stop_after_row: str | None = None
        self._began = time.monotonic()

    def on_init_end(self) -> None:
        super().on_init_end()
        self.resumed = self.saved_step = self.global_steps
        self.log = report.StepLog(self.out / "metrics.jsonl", self.resumed)
        self.sample_log = report.StepLog(self.out / "samples.jsonl", self.resumed)
        validated = {row["step"]: row["val/reward"] for row in self.log.kept if "val/reward" in row}
        last = validated.pop(self.resumed, None)
        self.best_reward = max(validated.values(), default=-math.inf)
        self.say(f"they are up after {report.duration(time.monotonic() - self._began)}")
        if self.resumed:
            self.config.trainer.val_before_train = False  # this step was validated before its checkpoint was made
            self.say(f"continuing after step {self.resumed} of {self.total_training_steps}")
        if last is not None:
            self._keep_best(last)  # the run may have ended between this step's checkpoint and its place as the best

    def say(self, line: str) -> None:
        """A line for the person who watches (alignxplore/rl/train.py prints it on the console)."""
        with (self.out / "log" / "progress.txt").open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    # ---- one step ----

    def prepare_step(self) -> dict:
        self._step_began = time.monotonic()
        self._loader_before = self.train_dataloader.state_dict()
        if self._asked_to_stop():
            self._stop(ASKED)
        return super().prepare_step()

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        try:
            return super()._step_once(metrics, timing_raw, sample_batch_size)
        except RuntimeError as error:
            if "no materializable trajectories" in str(error):  # every row of the step was lost
                self._collect()
            raise

    def on_sample_end(self) -> None:
        self._collect()
        super().on_sample_end()

    def _collect(self) -> None:
        self._records, self._repeated = self.agent_loop_manager.drain()
        share, reasons = report.lost_share(self._records)
        if share > self.settings.max_failures:
            self._save_before_this_step()
            worst, count = reasons.most_common(1)[0]
            raise RunStopped(
                f"step {self.global_steps}: {100 * share:.0f} % of the rollouts were lost, allowed are "
                f"{100 * self.settings.max_failures:.0f} %; most often ({count} times): {worst}"
            )
        if fault := report.constant_judge(self._records):
            self._save_before_this_step()
            raise RunStopped(f"step {self.global_steps}: {fault}")

    def _wait(self, verls: Callable, *args: object) -> float:
        """verl's wait for a step's rollouts, which ends the run if they will never come."""
        now, reason = time.monotonic(), None
        if self._asked_to_stop():
            reason = ASKED
        elif now - self._step_began > self.settings.step_limit:
            reason = f"its rollouts were not there after streaming.step_limit={self.settings.step_limit:.0f} seconds"
        elif now - self._looked > LOOK_SECONDS:
            self._looked, reason = now, self.agent_loop_manager.fault()
        if reason:
            self._stop(reason)
        return verls(*args)

    def _asked_to_stop(self) -> bool:
        return (self.out / STOP).exists()

    def _stop(self, reason: str) -> NoReturn:
        """End the run before this step's update, if possible with a checkpoint."""
        try:
            self._save_before_this_step()
        except Exception:  # whatever has gone with it, the reason is the one to be told
            log.exception("no checkpoint could be saved")
        left = f"the last checkpoint is of step {self.saved_step}" if self.saved_step else "there is no checkpoint yet"
        raise RunStopped(f"step {self.global_steps}: {reason}; {left}")

    def _save_before_this_step(self) -> None:
        """A checkpoint of the weights as they are, with the data where the unfinished step began."""
        if self.saved_step == self.global_steps - 1:
            return
        loader, self.train_dataloader = self.train_dataloader, SimpleNamespace(state_dict=lambda: self._loader_before)
        self.global_steps -= 1
        try:
            self._save_now()
        finally:
            self.global_steps += 1
            self.train_dataloader = loader

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, **kwargs: object) -> KVBatchMeta:
        check_versions(batch.tags, self.global_steps)
        # verl cuts a step's updates from the rows as they stand: in the order of their users' ends, the first update
        # would be of those who write little.
        batch.reorder(update_order(batch.keys, batch.tags))
        return super()._balance_batch(batch, metrics, **kwargs)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        check_probabilities(metrics, self.tolerance)
        if self.tolerance.group is not None:
            data = tq.kv_batch_get(
                keys=batch.keys, partition_id=batch.partition_id, select_fields=["old_log_probs", "rollout_log_probs"]
            )
            both = (data[name].unbind() for name in ("old_log_probs", "rollout_log_probs"))
            check_groups(group_differences(batch.keys, batch.tags, *both), self.tolerance.group, metrics)
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        if self.settings.credit == "tree":
            self._weigh_stages(batch)
        return batch

    def _weigh_stages(self, batch: KVBatchMeta) -> None:
        """A tree has more rows in stage 2; scaled advantages let both stages weigh the same in verl's mean over
        tokens."""
        real = [not tag.get("is_padding", False) for tag in batch.tags]
        weights = stage_weights(
            [tag["response_len"] for tag, r in zip(batch.tags, real) if r],
            [tag["stage"] for tag, r in zip(batch.tags, real) if r],
        )
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"])
        factors = [weights.get(tag["stage"], 1.0) for tag in batch.tags]
        data["advantages"] = torch.nested.as_nested_tensor(
            [row * factor for row, factor in zip(data["advantages"].unbind(), factors)], layout=torch.jagged
        )
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics.update(report.stage_metrics(self._records))
        metrics |= {"repeated_requests": sum(self._repeated.values())} | {
            f"repeated/{kind}": n for kind, n in self._repeated.items()
        }
        metrics["timing_s/save_checkpoint"], self._save_seconds = (
            self._save_seconds,
            0.0,
        )  # of the step before: this one's comes after its row
        metrics["training/rows"] = sum(not tag.get("is_padding", False) for tag in batch.tags)
        broken = [
            name for name in ("actor/pg_loss", "actor/grad_norm") if not math.isfinite(metrics.get(name, math.nan))
        ]
        if broken:
            raise RunStopped(
                f"step {global_steps}: {broken[0]} is {metrics.get(broken[0])}; the last checkpoint is of step {self.saved_step}"
            )
        self.log.append(
            {"step": global_steps}
            | {k: v for k, v in metrics.items() if isinstance(v, (int, float)) or hasattr(v, "item")}
        )
        self._progress(global_steps, metrics)
        if self._save_due or self._stop_after_row:
            self._save_now()
        if self._stop_after_row:
            raise RunStopped(self._stop_after_row)
        if "val/reward" in metrics:
            self._keep_best(metrics["val/reward"])

    def _progress(self, step: int, metrics: report.Numbers) -> None:
        if step == self.resumed + 1:
            self._first_step_done = time.monotonic()
        done = step - self.resumed - 1
        each = (time.monotonic() - self._first_step_done) / done if done else time.monotonic() - self._step_began
        left = each * (self.total_training_steps - step)
        self.say(
            report.progress_line(step, self.total_training_steps, metrics, time.monotonic() - self._step_began, left)
        )

    # ---- validation and the best model ----

    def _validate(self) -> report.Numbers:
        """Streams of the held-out users; keeps the model if it is the best so far. Replaces verl's validation, which
        knows neither stages nor past summaries."""
        if self._asked_to_stop() and self.global_steps < self.total_training_steps:
            if not self.global_steps:
                raise RunStopped(f"{ASKED} before the first step; there is no checkpoint yet")
            return {}  # the step is written down and saved, and the run ends before the next
        rows = [self.val_dataset[i]["extra_info"] for i in range(len(self.val_dataset))]
        try:
            records = self.agent_loop_manager.validate(rows, self.global_steps)
        except ray.exceptions.GetTimeoutError:
            raise RunStopped(
                f"validation at step {self.global_steps} was not done after streaming.step_limit={self.settings.step_limit:.0f} "
                "seconds"
            ) from None
        share, reasons = report.lost_share(records)
        if share > self.settings.max_failures:
            sentence = f"validation at step {self.global_steps}: {100 * share:.0f} % of the rollouts were lost: {reasons.most_common(1)[0][0]}"
            if not self.global_steps:
                raise RunStopped(sentence)
            self._stop_after_row = sentence  # the step itself is good: it is written down and saved first
        metrics = report.validation_metrics(records, self.settings.stages)
        if self._stop_after_row:
            metrics.pop(
                "val/reward", None
            )  # of those few that were left: no model may become the best by it, here or after a resume
        for row in report.samples(records[: self.settings.samples], self.global_steps):
            self.sample_log.append(row)
        if self.global_steps == 0:
            self.log.append({"step": 0} | metrics)
            self.say(f"before training: validation reward {metrics['val/reward']:.3f}")
            self._keep_best(metrics["val/reward"])
        return metrics

    def _keep_best(self, reward: float) -> None:
        if reward <= self.best_reward:
            return
        self.best_reward = reward
        if not self.global_steps:
            return  # the model that the run starts from is where it was
        if self.saved_step != self.global_steps:
            self._save_now()
        best, about = self.out / "best", {"step": self.global_steps, "reward": reward}
        if not (best / VALIDATION).exists() or json.loads((best / VALIDATION).read_text()) != about:
            publish_model(self.checkpoint_folder(), best, self.config.actor_rollout_ref.rollout.dtype, about)

    # ---- checkpoints ----

    def checkpoint_folder(self) -> Path:
        """Where the checkpoint of the current step is."""
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _save_checkpoint(self) -> None:
        """verl asks for it before it validates and before we have looked at the step's numbers: it is made after both,
        so that no checkpoint holds broken weights or a step that metrics.jsonl lacks."""
        self._save_due = True

    def _save_now(self) -> None:
        began = time.monotonic()
        make_room(self.checkpoint_folder().parent, self.saved_step, self.config.trainer.max_actor_ckpt_to_keep)
        super()._save_checkpoint()
        self._save_due, self.saved_step = False, self.global_steps
        self._save_seconds += time.monotonic() - began

    def fit(self, agent_loop_manager: object) -> None:
        super().fit(agent_loop_manager)
        done = self.global_steps - 1
        if done < self.total_training_steps:
            raise RunStopped(
                f"verl stopped after step {done} of {self.total_training_steps}; give trainer.total_epochs room for all steps"
            )


class StreamingRunner:
    """The Ray actor that drives a run: verl's TaskRunner with our trainer."""

    def run(self, config: DictConfig) -> None:
        """Train to the last planned step; raises where that was not reached."""
        configure_verl_logging()
        actors = start_actors(config)
        config.transfer_queue.enable = True
        OmegaConf.resolve(config)
        pprint(OmegaConf.to_container(config))
        tq.init(config.transfer_queue)
        trainer = None
        try:
            trainer = StreamingTrainer(config)
            trainer.init()
            trainer.fit(StreamingManager.create(actors, config=config, llm_client=trainer.get_llm_client()))
        finally:
            if getattr(trainer, "logger", None) is not None:
                trainer.logger.finish()
            tq.close()
