"""The kill suite's engine: a real command is killed at a drawn moment, then the same command runs again, and must end
as if nothing had been.

    ./test.sh --kill                       every stage, 20 moments of each (KILLS): half by SIGKILL, half by Ctrl-C
    KILLS=2 ./test.sh --kill -k summaries  two moments of one stage

Each stage's counts go to outputs/reliability/, from which `python -m tests.reliability` writes the table of
RELIABILITY.md. The same command at the same commit strikes only the moments that are left.
"""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from alignxplore.environment import git_commit
from alignxplore.records import write_json
from tests import ROOT

KILLS = int(os.environ.get("KILLS", "1"))
WHOLE = pytest.mark.skipif("KILLS" not in os.environ, reason="of the kill suite: ./test.sh --kill")
RESULTS = ROOT / "outputs" / "reliability"  # a file for each stage
MARK = "KILL_SUITE"
STARTING = 0.2  # share of the moments that fall before the work begins: imports, files, servers
GONE = 30.0  # seconds in which everything of a killed run must have ended
_SHM = 'mount --bind "$0" /dev/shm && exec "$@"'
# What a library keeps on purpose, by name: compiled code, downloaded tables.
CACHES = ("torchinductor_", "matplotlib")
# Empty folders that wandb makes when it is imported, and takes away at an ordinary end only (RELIABILITY.md says so).
OF_WANDB = ("wandb-media", "wandb-artifacts")


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline as its command is given.

    Attributes:
        command: words, given the output folder; relative to nothing.
        begun: whether the work of a run in this folder has begun.
        made: what two runs must agree in.
        finished: unit → requests that it takes, of those that a folder holds as done.
        requests: how many so far (None: the stage asks nobody).
        in_flight: requests that can be in flight at most.
        prepare: what an output folder needs before the first run.
        grace: how a run that is asked by Ctrl-C may exit.
    """

    name: str
    command: Callable[[Path], Sequence[object]]
    begun: Callable[[Path], bool]
    made: Callable[[Path], Any]
    finished: Callable[[Path], Mapping[str, int]] = lambda out: {}
    requests: Callable[[], int] | None = None
    in_flight: int = 0
    prepare: Callable[[Path], None] = lambda out: out.mkdir(parents=True, exist_ok=True)
    variables: Callable[[Path], Mapping[str, str]] = lambda out: {}
    grace: tuple[int, ...] = (130,)


@dataclass
class Counts:
    """What became of the moments of one stage."""

    stage: str
    moments: int = 0
    struck: dict[str, int] = field(default_factory=lambda: {"SIGKILL": 0, "SIGINT": 0})  # while it ran
    survived: int = 0
    faults: list[str] = field(default_factory=list)
    finished: int = 0  # units that were done when the signals struck
    asked_again: int = 0  # requests beyond those of an undisturbed run and its checks
    seconds: float = 0.0  # of the undisturbed run
    count: int = 0  # of a whole suite
    numbers: list[int] = field(default_factory=list)  # of the moments, in their order


@cache
def own_shm() -> bool:
    """Whether a run can be given a /dev/shm of its own, so that what it leaves there is known to be its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@cache
def temporary_of(place: Path) -> Path:
    """A temporary folder for the runs of one place, with a path that is short enough for sockets."""
    return Path(tempfile.mkdtemp(prefix="axp-kill-", dir="/tmp"))


class Run:
    """A started command, with a temporary folder and a /dev/shm of its own; whatever it starts carries a mark."""

    def __init__(self, stage: Stage, out: Path, place: Path):
        self.mark, self.temporary, self.shm = secrets.token_hex(8), temporary_of(place), place / "shm"
        self.shm.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in stage.command(out)]
        if own_shm():
            words = ["unshare", "-m", "sh", "-c", _SHM, str(self.shm), *words]
        variables = {MARK: self.mark, "TMPDIR": str(self.temporary), "SPT_NOENV": "1"} | dict(stage.variables(out))
        self.log = (place / "log.txt").open("a+b")
        began = self.log.tell()
        self.process = subprocess.Popen(
            words,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | variables,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._began = began

    def said(self) -> str:
        """What it printed so far."""
        self.log.seek(self._began)
        return self.log.read().decode(errors="replace")

    def strike(self, number: signal.Signals) -> bool:
        """A kill of the command alone, or Ctrl-C for all of its group; False where it has ended already."""
        if self.process.poll() is not None:
            return False
        if number == signal.SIGKILL:
            self.process.kill()
        else:
            os.killpg(self.process.pid, number)
        return True

    def alive(self) -> list[str]:
        """Commands that carry the mark and have not ended."""
        commands = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    commands.append(" ".join(process.cmdline())[:120])
            except (psutil.Error, OSError):
                continue
        return commands

    def end(self, limit: float) -> int:
        """The exit code; what hangs is killed and is a fault."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"not done after {limit:.0f} s: {self.said()[-300:]}") from None

    def all_gone(self) -> None:
        deadline = time.monotonic() + GONE
        while survivors := self.alive():
            assert time.monotonic() < deadline, f"still running: {survivors}"
            time.sleep(0.2)


def left_behind(run: Run) -> list[str]:
    """What lies in the temporary folder of a run and in its /dev/shm."""
    there = [path.name for path in run.temporary.iterdir()]
    names = [name for name in there if not name.startswith(CACHES) and not name.endswith(OF_WANDB)]
    names += [f"/dev/shm/{path.name}" for path in run.shm.iterdir()]
    return sorted(names)


def files(out: Path) -> set[str]:
    """Names of all files below a folder, but for tensorboard's, which are named after the clock."""
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name}


class Suite:
    """One stage's undisturbed run, and moments to compare with it."""

    def __init__(self, stage: Stage, place: Path, limit: float = 600.0):
        self.stage, self.place, self.limit = stage, place, limit
        self.counts = Counts(stage.name)
        out, started = place / "whole" / "out", time.monotonic()
        stage.prepare(out)
        before = self._asked()
        run = Run(stage, out, place / "whole")
        while run.process.poll() is None and not stage.begun(out):
            time.sleep(0.01)
        self.begins = time.monotonic() - started
        code = run.end(limit)
        self.takes = time.monotonic() - started
        assert code == 0, run.said()[-3000:]
        run.all_gone()
        self.kept, self.whole, self.units, self.files = (
            left_behind(run),
            stage.made(out),
            stage.finished(out),
            files(out),
        )
        shutil.rmtree(temporary_of(place / "whole"))
        self.checks = self._asked() - before - sum(self.units.values())
        self.counts.seconds = round(self.takes, 1)

    def _asked(self) -> int:
        return self.stage.requests() if self.stage.requests else 0

    def moment(self, number: int, count: int) -> None:
        """One moment of `count`: strike, run again, compare. What is wrong is noted."""
        dice = random.Random(f"{self.stage.name} {number}")
        share = (number + dice.random()) / count if count > 1 else STARTING + (1 - STARTING) * dice.random()
        signal_number = signal.SIGINT if number % 2 else signal.SIGKILL
        place = self.place / f"moment{number}"
        self.counts.moments += 1
        try:
            self._moment(share, signal_number, place)
        except AssertionError as error:
            self.counts.faults.append(f"moment {number} ({signal_number.name} at {share:.2f}): {str(error)[:1500]}")
        else:
            self.counts.survived += 1
            shutil.rmtree(place)
            shutil.rmtree(temporary_of(place))

    def _moment(self, share: float, number: signal.Signals, place: Path) -> None:
        stage, out = self.stage, place / "out"
        stage.prepare(out)
        first = self._asked()
        run = Run(stage, out, place)
        self._wait(run, out, share)
        begun = stage.begun(out)
        struck = run.strike(number)
        self.counts.struck[number.name] += struck
        code = run.end(self.limit)
        if struck and number == signal.SIGINT:
            # An interpreter that has no line of ours yet, or has done its work, dies of it in its own way.
            kind = code in (*stage.grace, 0, -signal.SIGINT) and "Traceback" not in run.said()
            early = not begun and not any(part in run.said() for part in ("/alignxplore/", "site-packages"))
            assert kind or early, f"Ctrl-C: exit {code}: {run.said()[-800:]}"
        run.all_gone()
        finished_units = dict(stage.finished(out))
        self.counts.finished += len(finished_units)
        second = self._asked()
        again = Run(stage, out, place)
        code = again.end(self.limit)
        assert code == 0, f"the same command: exit {code}: {again.said()[-1500:]}"
        again.all_gone()
        assert stage.made(out) == self.whole, "it came to something else"
        self._compare_requests(finished_units, second - first, self._asked() - second)
        extra = files(out) ^ self.files
        assert not extra, f"other files than in an undisturbed run: {sorted(extra)}"
        leftovers = [name for name in left_behind(again) if name not in self.kept]
        assert not leftovers, f"left behind: {leftovers}"

    def _wait(self, run: Run, out: Path, share: float) -> None:
        """Until the moment: a share of the start, or of the work."""
        if share < STARTING:
            self._sleep(run, self.begins * share / STARTING)
            return
        while run.process.poll() is None and not self.stage.begun(out):
            time.sleep(0.005)
        self._sleep(run, (self.takes - self.begins) * (share - STARTING) / (1 - STARTING))

    @staticmethod
    def _sleep(run: Run, seconds: float) -> None:
        until = time.monotonic() + seconds
        while run.process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)

    def _compare_requests(self, finished_units: Mapping[str, int], before: int, after: int) -> None:
        """Finished units are asked nothing; beyond an undisturbed run's requests are those in flight at most."""
        if not self.stage.requests:
            return
        assert finished_units.keys() <= self.units.keys(), "units of other ids"
        remainder = sum(requests for unit, requests in self.units.items() if unit not in finished_units)
        assert after <= remainder + self.checks, (
            f"{after} requests for units that take {remainder}, and {self.checks} checks"
        )
        again = before + after - sum(self.units.values()) - 2 * self.checks
        self.counts.asked_again += max(0, again)
        assert again <= self.stage.in_flight, (
            f"{again} requests were repeated; {self.stage.in_flight} can be in flight"
        )

    def all(self, count: int = KILLS) -> None:
        """All moments, in a drawn order: those of a suite that is ended early are a sample. Counts are written after
        each; then it fails for what was found."""
        self._go_on(count)
        if self.kept:
            self.counts.faults.append(f"an undisturbed run: left behind: {self.kept}")
        for number in random.Random(self.stage.name).sample(range(count), count):
            if number not in self.counts.numbers:
                self.moment(number, count)
                self.counts.numbers.append(number)
                write_json(self._results, asdict(self.counts) | {"commit": git_commit()})
        assert not self.counts.faults, "\n\n".join(self.counts.faults)

    @property
    def _results(self) -> Path:
        return RESULTS / f"{self.stage.name}.json"

    def _go_on(self, count: int) -> None:
        """Take over the counts of a suite that was ended early, if it was of this code and as long."""
        self.counts.count = count
        if "KILLS" not in os.environ or not self._results.exists():
            return
        counts, commit = json.loads(self._results.read_text()), git_commit() or "+"
        if (counts.pop("commit"), counts.get("count")) == (commit, count) and not commit.endswith("+"):
            self.counts = Counts(**counts)
