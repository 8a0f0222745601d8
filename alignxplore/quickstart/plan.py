"""What a pipeline will do: `--check` says it before anything is installed, so nothing here needs a package."""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignxplore.quickstart.folder import RunFolder
from alignxplore.quickstart.settings import Settings
from alignxplore.quickstart.steps import Step, length, order

AT_ONCE = 2  # steps side by side, on two cores


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Steps, the folder for what they make, and what is said of it at the end."""

    out: Path
    steps: Sequence[Step]
    deciding: Mapping[str, str] = field(default_factory=dict)  # NAME → value: what decides what is made
    results: Mapping[str, Path] = field(default_factory=dict)  # what it is → where
    pace: str = "on two cores"  # what the seconds of the steps were measured on
    remedy: str = ""  # what to do where the folder was made with other settings; default: choose another one
    keep_going: bool = False  # after a step that failed: with those that need nothing of it

    @classmethod
    def of(cls, settings: Settings, steps: Sequence[Step], **results: str) -> "Pipeline":
        """The steps of these settings; `results` are files in their folder."""
        where = {name: settings.out / file for name, file in results.items()}
        return cls(out=settings.out, steps=steps, deciding=settings.deciding(), results=where, remedy=settings.remedy)


def planned_steps(pipeline: Pipeline, at_once: int) -> str:
    """A line for each step, and how long those take that are not done; starts nothing, writes nothing.

    Raises:
        NotADirectoryError: a file stands in the folder's place.
    """
    if pipeline.out.exists() and not pipeline.out.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no folder", str(pipeline.out))
    folder = RunFolder(pipeline.out)
    folder.refuse_others(pipeline.deciding, pipeline.remedy)
    seconds = {step.name: float(step.seconds) for step in folder.undone(pipeline.steps)}
    lines = [
        f"-- {step.name}: {f'about {step.seconds} s' if step.name in seconds else 'done before'}"
        for step in pipeline.steps
    ]
    time = minutes(length(seconds, order(pipeline.steps), at_once))
    return "\n".join([*lines, f"{time} to go, {pipeline.pace}; nothing was started"])


def minutes(seconds: float) -> str:
    """`3 min 05 s`."""
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
