"""The folder of a run. It belongs to one run at a time, and remembers with which settings and which code it was made
and which steps are done: by which commands, in how many seconds. Paths inside the repository are written as $ROOT/...,
so that a run is finished wherever it is taken with its repository. Nothing here needs a package: `--check` may
have none."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from alignxplore.environment import ROOT, git_commit
from alignxplore.errors import UserError, naming, program
from alignxplore.locks import take_lock
from alignxplore.quickstart.steps import Step, order
from alignxplore.same_run import refuse_other

_ADDED = ("RATINGS",)  # settings that runs of earlier versions did not write down
PATIENCE = 30.0  # seconds that a run waits for another one, which may be just ending


class FolderError(UserError):
    """The folder is another run's, now or for good."""


class RunFolder:
    """Where everything of a run goes: OUT/logs, OUT/steps (a file for each step that is done), and what steps make."""

    def __init__(self, out: Path):
        self.out, self.logs, self._steps = out, out / "logs", out / "steps"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[int]:
        """Ours alone for the length of a with-block; yields the file descriptor that holds the lock.

        Raises:
            FolderError: another run has it, and does not end within half a minute.
        """
        for folder in (self.logs, self._steps):
            folder.mkdir(parents=True, exist_ok=True)
        with (self.out / ".lock").open("w") as lock:
            self._wait_for(lock.fileno())
            yield lock.fileno()

    def _wait_for(self, lock: int) -> None:
        deadline = None
        while True:
            try:
                return take_lock(lock, self.out)
            except BlockingIOError:
                pass
            if deadline is None:
                print(f"another run is writing into {self.out}, or just ending; waiting up to 30 s", flush=True)
                deadline = time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                raise FolderError(
                    f"another run is writing into {self.out}; wait for it or choose another --out (OUT for a study)"
                )
            time.sleep(0.2)

    def note_commit(self) -> None:
        """Remember the commit, where there is one, and warn of others that worked here."""
        if (code := git_commit()) is None:
            return
        path = self.out / "commits"
        commits = path.read_text().split() if path.exists() else []
        if code not in commits:
            _write(path, [*commits, code])
        if others := [one for one in commits if one != code]:
            print(
                f"{program()}: warning: {self.out} was worked on by other code ({' '.join(others)}; now {code}); "
                "what is finished is kept",
                file=sys.stderr,
            )

    def refuse_others(self, deciding: Mapping[str, str], remedy: str = "") -> None:
        """Raise `OtherRun` if a step was done here with other settings, so that runs never mix.

        Args:
            deciding: NAME → value of what decides what is made.
            remedy: what to do then; default: choose another folder.
        """
        if not (self.out / "settings").exists():
            return
        old_settings, new_settings = settings_of(self.out), _pairs(_lines(deciding))
        if not any(self._steps.glob("*.json")):
            return  # what failed before anything was made binds nobody
        for name in _ADDED:  # one of the two may not know it
            if not old_settings.get(name) or not new_settings.get(name):
                old_settings.pop(name, None)
                new_settings.pop(name, None)
        refuse_other(self.out, old_settings, new_settings, out="--out (OUT for a study)", remedy=remedy)

    def note_settings(self, deciding: Mapping[str, str]) -> None:
        """Remember the settings that the folder is made with."""
        if deciding:
            _write(self.out / "settings", [_portable(line) for line in _lines(deciding)])

    def seconds(self, step: Step) -> float | None:
        """How long the step took; None if it was not done, or by other commands."""
        path = self._steps / f"{step.name}.json"
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            seconds, commands = float(record["seconds"]), [_here(line) for line in record["commands"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FolderError(f"{path}: damaged; delete it: its step is done again") from None
        return seconds if commands == step.lines(self.out) else None

    def undone(self, steps: Sequence[Step]) -> list[Step]:
        """The steps that are still to be done: what comes after one of them is to be done again as well."""
        before, rest = order(steps), dict[str, Step]()
        for step in steps:
            if self.seconds(step) is None or any(name in rest for name in before[step.name]):
                rest[step.name] = step
        return list(rest.values())

    def note_done(self, step: Step, seconds: float) -> None:
        """Remember that it is done."""
        commands = [_portable(line) for line in step.lines(self.out)]
        record = {"commands": commands, "seconds": round(seconds)}
        _write(self._steps / f"{step.name}.json", [json.dumps(record, indent=1)])


def _lines(deciding: Mapping[str, str]) -> list[str]:
    return "\n".join(f"{name}={value}" for name, value in deciding.items()).splitlines()


def _portable(line: str) -> str:
    return line.replace(f"{ROOT}/", "$ROOT/")


def _here(line: str) -> str:
    return line.replace("$ROOT/", f"{ROOT}/")


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def settings_of(out: Path) -> dict[str, str]:
    """NAME → value of the settings that a run's folder was made with.

    Raises:
        FolderError: nothing, or not all, could be written down.
    """
    text = (out / "settings").read_text(encoding="utf-8")
    if not text.endswith("\n"):
        raise FolderError(
            f"{out}/settings: empty or cut short, as a full disk leaves it, so that nobody knows how the folder was "
            "made; delete this file if it was with the settings that you give now, or choose another folder"
        )
    return _pairs([_here(line) for line in text.splitlines()])


def _write(path: Path, lines: Sequence[str]) -> None:
    """Only what differs from what is there; aside, then renamed: with a full disk the earlier text stays."""
    text = "".join(f"{line}\n" for line in lines)
    if path.is_file() and path.read_bytes() == text.encode():
        return
    aside = path.with_name(f".{path.name}.partial")
    try:
        with naming(path), aside.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
