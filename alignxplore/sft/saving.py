"""When a run saves, other than every so many steps: by time, and when it is told to end. Used by `trainer.py`."""

import functools
import signal
import time
from collections.abc import Callable

import torch
from transformers import TrainerCallback

STOPPED = 128 + signal.SIGTERM  # exit code of a run that was told to end, and saved


class Saves(TrainerCallback):
    """Asks for a checkpoint every so many minutes and at the last step; on SIGTERM for one at once, after which the
    run stops (`stopped`).

    All processes write a checkpoint together, so they agree at the end of each step. transformers' own
    (`enable_jit_checkpoint`) has each process decide by itself, and saves before the optimizer's step, which DeepSpeed
    has taken by then.

    Args:
        minutes: None: not by time.
    """

    def __init__(self, minutes: float | None):
        self.minutes, self.is_asked_to_end, self.has_stopped, self.last_save = minutes, False, False, 0.0

    def on_train_begin(self, args, state, control, **_):
        self.last_save = time.monotonic()
        self.previous_handler = signal.signal(signal.SIGTERM, self._hear)

    def on_train_end(self, args, state, control, **_):
        signal.signal(signal.SIGTERM, self.previous_handler)

    def on_step_end(self, args, state, control, **_):
        is_due = self.minutes is not None and time.monotonic() - self.last_save >= 60 * self.minutes
        is_asked, is_due = _anywhere(self.is_asked_to_end, is_due and state.is_world_process_zero, device=args.device)
        is_last = state.global_step >= state.max_steps
        if is_asked and not is_last:
            self.has_stopped = control.should_training_stop = True
            control.should_log = control.should_save = True
        elif is_due and state.global_step % state.logging_steps == 0:  # or a log line would be cut in two
            control.should_save = True
        elif is_last and self.minutes is not None:
            control.should_save = True

    def on_save(self, args, state, control, **_):
        self.last_save = time.monotonic()

    def _hear(self, *_: object) -> None:
        self.is_asked_to_end = True


def _anywhere(*flags: bool, device: torch.device) -> list[bool]:
    """Which of these are true in any process."""
    if not torch.distributed.is_initialized():
        return list(flags)
    counts = torch.tensor(flags, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in counts.tolist()]


def heedless(start: Callable[[int], None] | None) -> Callable[[int], None]:
    """What a worker of a data loader begins with, so that a SIGTERM to all processes of a job leaves it to serve the
    run until that has saved; `start`: what it began with before."""
    return functools.partial(_ignore_sigterm, start)


def _ignore_sigterm(start: Callable[[int], None] | None, worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if start:
        start(worker)
