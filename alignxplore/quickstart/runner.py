"""Runs the steps of a pipeline: printed, timed, logged, side by side where they may, skipped where they are done.

Every command runs as a family of processes (`alignxplore/processes.py`), so that nothing outlives the run, however it
ends: by a failed step, by Ctrl-C, by `kill -9`. The same command then goes on.
"""

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.processes import Family, end_all
from alignxplore.quickstart.folder import RunFolder
from alignxplore.quickstart.plan import AT_ONCE, Pipeline, minutes
from alignxplore.quickstart.steps import Command, Server, Step, length, order
from alignxplore.serving.server import announced

# What every command is given: nothing is downloaded, and one thread, as two commands side by side have a core each.
COMMON = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "DEVICE": "cpu",
    "DS_ACCELERATOR": "cpu",  # or DeepSpeed warns that it found nothing else
}


class StepError(UserError):
    """A step, or a server that it needs, ended with an error. `steps`: name → why, of all that did, where the run went
    on."""

    def __init__(self, message: str, steps: Mapping[str, str] | None = None):
        super().__init__(message)
        self.steps = dict(steps or {})


def run(pipeline: Pipeline, at_once: int = AT_ONCE) -> str:
    """Do what is not done yet. Returns where the time went, and where the results are.

    Raises:
        FolderError: the folder is another run's just now. OtherRun: it was made with other settings.
        StepError: a step failed.
    """
    began, folder = time.monotonic(), RunFolder(pipeline.out)
    with folder.claimed() as lock:
        folder.note_commit()
        folder.refuse_others(pipeline.deciding, pipeline.remedy)
        folder.note_settings(pipeline.deciding)
        with _interruptible():
            _Runner(pipeline, folder, lock, at_once).work()
        lines = [f"\nDone in {minutes(time.monotonic() - began)}. Where the time went:"]
        lines += [f"  {step.name:16} {folder.seconds(step):5.0f} s" for step in pipeline.steps]
    return "\n".join([*lines, "", *(f"{name:8} {path}" for name, path in pipeline.results.items())])


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """TERM and HUP do what Ctrl-C does: they end the run with a sentence and exit code 130."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Runner:
    """One run of a list: what is at work, which servers are up, what is still to come."""

    def __init__(self, pipeline: Pipeline, folder: RunFolder, lock: int, at_once: int):
        self.out, self.steps, self.folder = pipeline.out, pipeline.steps, folder
        self.lock, self.at_once, self.before = lock, at_once, order(pipeline.steps)
        self.keep_going, self.failed = pipeline.keep_going, dict[str, str]()
        self.waiting: dict[str, Step] = {}
        self.active: dict[str, _Work] = {}
        self.servers: dict[str, _RunningServer] = {}
        self.families: list[Family] = []
        self.began, self.expected = time.monotonic(), 0.0

    def work(self) -> None:
        """Until all is done; whatever ends it, nothing that it started stays."""
        self.waiting = {step.name: step for step in self.folder.undone(self.steps)}
        for step in self.steps:
            if step.name not in self.waiting:
                print(f"-- {step.name}: done before", flush=True)
        self.expected = self._expected_left()
        if self.waiting:
            print(f"\nIn {ROOT}, with this environment:\n   $ {_exported(self.out)}", flush=True)
        try:
            while self.waiting or self.active:
                self._begin()
                for work in list(self.active.values()):
                    self._advance(work)
                time.sleep(0.1)
            if self.failed:
                raise StepError("\n".join(self.failed.values()), self.failed)
        except KeyboardInterrupt:
            print("\ninterrupted; to go on run the same command again", flush=True)
            raise
        finally:
            self._end_all()

    def _begin(self) -> None:
        """Start steps that may begin, as far as there is room for them."""
        for step in list(self.waiting.values()):
            undone = any(name in self.waiting or name in self.active for name in self.before[step.name])
            if undone or len(self.active) >= self.at_once:
                continue
            rest = minutes(self._time_left())
            print(f"\n== {step.name} (about {step.seconds} s; {rest} left in all)", flush=True)
            self.active[step.name] = _Work(self, self.waiting.pop(step.name))

    def _advance(self, work: "_Work") -> None:
        try:
            finished = not next(work.progress, False)
        except StepError as error:
            if not self.keep_going:
                raise
            return self._give_up(work.step, error)
        work.log.show(several=len(self.active) > 1, last=finished)
        if finished:
            del self.active[work.step.name]
            self.folder.note_done(work.step, time.monotonic() - work.began)
            self._end_servers()

    def _give_up(self, failed: Step, error: StepError) -> None:
        """Go on without a step and those that need it; a server that has ended is started again for the others."""
        print(f"{error}\nWhat needs nothing of it goes on.", flush=True)
        del self.active[failed.name]
        self.failed[failed.name] = str(error)
        lost = {failed.name}
        for name in list(self.waiting):
            if lost.intersection(self.before[name]):
                lost.add(name)
                del self.waiting[name]
        for server in failed.servers:
            if (running := self.servers.get(server.name)) and running.family.poll() is not None:
                self.end(self.servers.pop(server.name).family)
        self._end_servers()

    def _expected_left(self) -> float:
        """Seconds by the list: of steps that wait, and of what is left of those at work."""
        now = time.monotonic()
        seconds = {name: max(0.0, work.step.seconds - (now - work.began)) for name, work in self.active.items()}
        return length(seconds | {s.name: float(s.seconds) for s in self.waiting.values()}, self.before, self.at_once)

    def _time_left(self) -> float:
        """The same, corrected by how this machine has done so far."""
        rest = self._expected_left()
        progress = self.expected - rest
        return rest * (time.monotonic() - self.began) / progress if progress > 60 else rest

    def start(self, command: Command, output: Path) -> Family:
        """Start a command; what it says is added to a file."""
        with output.open("ab") as file, open(os.devnull, "rb") as nothing:
            file.write(f"   $ {command.shown(self.out)}\n".encode())
            file.flush()
            family = Family(
                command.words,
                environment=command.environment_in(os.environ, _common()),
                keep=[self.lock],
                cwd=ROOT,
                stdin=nothing,
                stdout=file,
                stderr=file,
            )
        self.families.append(family)
        return family

    def end(self, *families: Family) -> None:
        """End them with all that they started."""
        end_all(families)
        self.families = [family for family in self.families if family not in families]

    def server(self, server: Server) -> str | None:
        """Its URL once it is up; started by whoever asks first. Raises a StepError if it ended."""
        if server.name not in self.servers:
            self.servers[server.name] = _RunningServer(self, server)
        return self.servers[server.name].url()

    def _end_servers(self) -> None:
        """Those that nobody will ask any more."""
        coming = [*self.waiting.values(), *(work.step for work in self.active.values())]
        needed = {server.name for step in coming for server in step.servers}
        for name in self.servers.keys() - needed:
            self.end(self.servers.pop(name).family)

    def _end_all(self) -> None:
        ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
        self.end(*self.families)
        for number, handler in before.items():
            signal.signal(number, handler)


class _Work:
    """A step at work."""

    def __init__(self, runner: _Runner, step: Step):
        self.runner, self.step, self.began = runner, step, time.monotonic()
        self.log = _Log(runner.folder.logs / f"{step.name}.log", step.name)
        self.progress = self._run()

    def _run(self) -> Iterator[bool]:
        """Yields True as long as there is something to wait for."""
        while len(urls := self._addresses()) < len(self.step.servers):
            yield True
        for row in self.step.rows:
            families = [self._start(one.with_urls(urls)) for one in row]
            while any(family.poll() is None for family in families) and not any(f.poll() for f in families):
                yield True
            codes = [family.poll() for family in families]
            self.runner.end(*families)
            if any(codes):
                self._fail()

    def _addresses(self) -> dict[str, str]:
        """Name → URL of those of its servers that are up; all start at once, as each keeps one core busy."""
        urls = {server.name: self.runner.server(server) for server in self.step.servers}
        return {name: url for name, url in urls.items() if url is not None}

    def _start(self, command: Command) -> Family:
        try:
            return self.runner.start(command, self.log.path)
        except OSError as error:
            with self.log.path.open("a") as file:
                file.write(f"{command.words[0]}: {error.strerror}\n")
            self._fail()

    def _fail(self) -> NoReturn:
        self.log.show(several=False, last=True)
        raise StepError(
            f"step '{self.step.name}' failed; its output is in {self.log.path}. "
            "Mend the cause and run the same command again."
        )


class _Log:
    """A step's log, from where it ended when the step began, repeated on the screen line by line."""

    def __init__(self, path: Path, name: str):
        path.touch()
        self.path, self.name, self._rest = path, name, b""
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)

    def show(self, *, several: bool, last: bool) -> None:
        """Print what is new; half a line waits for the other half, unless it is the last.

        Args:
            several: the name of the step stands before each line.
        """
        whole, cut, rest = (self._rest + self._file.read()).rpartition(b"\n")
        text, self._rest = (whole + cut + rest, b"") if last else (whole + cut, rest)
        if text:
            lines = text.decode(errors="replace").splitlines()
            print("\n".join(f"{self.name} | {line}" if several else line for line in lines), flush=True)
        if last:
            self._file.close()


class _RunningServer:
    """A server that was started; what it prints goes to OUT/logs/serve_NAME.ready."""

    def __init__(self, runner: _Runner, server: Server):
        self.server, self.began = server, time.monotonic()
        self.ready = runner.folder.logs / f"serve_{server.name}.ready"
        self.ready.write_bytes(b"")
        print(f"   $ {server.command.shown(runner.out)}", flush=True)
        self.family, self._told = runner.start(server.command, self.ready), 0
        self._found: str | None = None

    def url(self) -> str | None:
        """None until it is up."""
        if self._found is None:
            self._found = announced(self.ready)
        if self._found is None and self.family.poll() is not None:
            raise StepError(f"the server '{self.server.name}' ended:\n{self.ready.read_text().strip()}")
        waited = int(time.monotonic() - self.began) // 20
        if self._found is None and waited > self._told:
            self._told = waited
            print(
                f"   starting the server of {self.server.name} (vLLM takes about a minute): {20 * waited} s",
                flush=True,
            )
        return self._found


def _common() -> dict[str, str]:
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))  # the project itself may not be installed
    return COMMON | {"PYTHONPATH": os.pathsep.join(paths)}


def _exported(out: Path) -> str:
    variables = {"OUT": str(out)} | _common()
    return " ".join(["export", *(f"{name}={shlex.quote(value)}" for name, value in variables.items())])
