"""What a run saves and when, how many checkpoints stay, which is the newest, and plain models made from them
(alignxplore/rl/trainer.py)."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alignxplore.errors import naming
from alignxplore.model_folders import share
from alignxplore.records import RecordError, read_object, write_json, write_text
from alignxplore.rl.settings import SettingsError
from alignxplore.saved_files import damage, sizes_of

POINTER = "latest_checkpointed_iteration.txt"  # the step of the newest checkpoint; verl writes it last
SIZES = "sizes.json"  # in a checkpoint, once all ranks have written: the lengths of its files
VALIDATION = "validation.json"  # in the folder of the best model: its step and reward


class Checkpoints:
    """The checkpoints of a run.

    Args:
        trainer: verl's; its `global_steps` and the state of its `train_dataloader` go into what is saved.
        verl_saves: writes the checkpoint of the trainer's current step.
        place: the state of the dataloader from which a run goes on after a step. It is not always the present one:
            users may have been fetched who are not trained on yet.
    """

    def __init__(self, trainer: Any, verl_saves: Callable[[], None], place: Callable[[int], dict]):
        self.trainer, self.verl_saves, self.place = trainer, verl_saves, place
        self.folder = Path(trainer.config.trainer.default_local_dir)
        self.keep: int | None = trainer.config.trainer.max_actor_ckpt_to_keep
        trainer.config.trainer.max_actor_ckpt_to_keep = None  # verl would take the old one before the new one is whole
        self.saved_step = -1  # the newest complete checkpoint; 0: none
        self.is_due = False  # verl has asked for one
        self._seconds = 0.0

    def current(self) -> Path:
        """Where the checkpoint of the trainer's current step is."""
        return self.folder / f"global_step_{self.trainer.global_steps}"

    def save(self) -> None:
        """Save the current step. What could not be written whole is taken away again.

        Raises:
            OSError: the disk is full, or cannot be written to; it names the checkpoint.
        """
        began, trainer = time.monotonic(), self.trainer
        place = self.place(trainer.global_steps)
        make_room(self.folder, self.saved_step, self.keep)
        sizes = self.current() / SIZES
        sizes.unlink(missing_ok=True)  # a step that is saved again
        loader, trainer.train_dataloader = trainer.train_dataloader, SimpleNamespace(state_dict=lambda: place)
        try:
            with naming(self.current()), _in_its_own_words():
                self.verl_saves()  # returns when all ranks have written
                write_json(sizes, {"sizes": sizes_of(self.current(), SIZES)})
        except Exception:
            if newest_step(self.folder) != trainer.global_steps:
                shutil.rmtree(self.current(), ignore_errors=True)  # its space is needed to say what happened
            raise
        finally:
            trainer.train_dataloader = loader
        self.is_due, self.saved_step = False, trainer.global_steps
        if self.keep is not None:
            make_room(self.folder, self.saved_step, self.keep + 1)
        self._seconds += time.monotonic() - began

    def save_before_this_step(self) -> None:
        """Save the weights as they are, as the step before, unless that was done, or this step has not begun."""
        if self.saved_step in (self.trainer.global_steps - 1, self.trainer.global_steps):
            return
        self.trainer.global_steps -= 1
        try:
            self.save()
        finally:
            self.trainer.global_steps += 1

    def spent(self) -> float:
        """Seconds spent on saving since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


@contextlib.contextmanager
def _in_its_own_words() -> Iterator[None]:
    """What went wrong in a worker of Ray, without Ray around it."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def newest_step(folder: Path) -> int:
    """Step of the newest whole checkpoint, 0 if there is none.

    The pointer is written after all else. A kill, a full disk or a power cut can leave it empty, or zero bytes in it:
    the newest folder is whole then.

    Raises:
        RecordError: it holds something else.
    """
    pointer = folder / POINTER
    if not pointer.exists():
        return 0
    text, newest = pointer.read_text(errors="replace").strip("\0\n "), max(_steps(folder), default=0)
    if text and not (text.isascii() and text.isdecimal()):
        example = f", e.g. {newest}" if newest else ""
        raise RecordError(f"no step; write the number of the newest whole checkpoint there{example}", pointer)
    return int(text or newest)


def mend_pointer(folder: Path) -> None:
    """Write the newest step down where that was not done to the end, as verl could not go on, and where its folder was
    deleted, as verl would begin anew."""
    pointer, step = folder / POINTER, newest_step(folder)
    if not pointer.exists():
        return
    rest = max((other for other in _steps(folder) if other <= step), default=0)
    if not rest:
        pointer.unlink()
    elif pointer.read_text() != str(rest):
        write_text(pointer, str(rest))


def refuse_damaged(folder: Path) -> None:
    """Refuse to go on from a checkpoint whose files are not as long as they were when it was saved: workers of Ray
    would not say which one it is. Those of earlier versions hold no lengths.

    Raises:
        SettingsError: by the file; RecordError: what holds the lengths is damaged.
    """
    checkpoint = folder / f"global_step_{newest_step(folder)}"
    if not (path := checkpoint / SIZES).exists():
        return
    remedy = f"delete {checkpoint.name}: the run goes on from the one before, or from the start"
    if sentence := damage(path, read_object(path, "sizes", remedy=remedy)["sizes"], remedy):
        raise SettingsError(sentence)


def _steps(folder: Path) -> dict[int, Path]:
    return {int(path.name.rpartition("_")[2]): path for path in folder.glob("global_step_*")}


def make_room(folder: Path, newest_step: int, keep: int | None) -> None:
    """Leave the newest `keep` - 1 checkpoints, at least one, before another is saved; None leaves all.

    verl counts only what its own process saved: every restart would leave its predecessor's checkpoints for good.

    Args:
        newest_step: of the newest complete checkpoint. Folders of later steps were not finished, or belong to steps
            that are done again.
    """
    if keep is None:
        return
    steps = _steps(folder)
    complete_steps = sorted(step for step in steps if step <= newest_step)
    for step in set(steps) - set(complete_steps[-max(1, keep - 1) :]):
        shutil.rmtree(steps[step])


def publish_model(checkpoint: Path, target: Path, dtype: str, validation: dict | None = None) -> None:
    """Put the Hugging Face folder of a checkpoint at `target`, complete or not at all, and in it how it was validated.

    verl writes its float32 master weights and calls them bfloat16; here the weights have the dtype that the rollouts
    ran in and config.json says so. Float32 folders share the checkpoint's disk blocks.
    """
    with naming(target):
        _publish(checkpoint, target, dtype, validation)


def _publish(checkpoint: Path, target: Path, dtype: str, validation: dict | None) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for source in (checkpoint / "actor" / "huggingface").iterdir():
        if source.suffix == ".safetensors" and dtype != "float32":
            tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(source).items()}
            save_file(tensors, aside / source.name, metadata={"format": "pt"})
        elif source.name == "config.json":
            config = read_object(source)
            config.pop("attn_implementation", None)  # how it was trained, not how it must be run
            write_json(aside / source.name, config | {"dtype": dtype})
        else:
            _link_or_copy(source, aside / source.name)
    if validation:
        write_json(aside / VALIDATION, validation)
    share(aside)
    if target.exists():
        shutil.rmtree(target)
    os.replace(aside, target)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
