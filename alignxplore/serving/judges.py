"""The judges of a training run on this machine, data parallel: one `vllm serve` each, until one of them ends or
this is asked to.

    python -m alignxplore.serving.judges --models "qwen3=Qwen/Qwen3-8B"      # what verl/serve_judge.sh runs

Prints the JUDGES= line that run_streaming_8p.sh takes once all of them answer. Options that are none of those below go
to every `vllm serve`.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from alignxplore.command import checked, items, option, parse_known
from alignxplore.devices import refuse_unusable_gpu, visible_gpus
from alignxplore.errors import at_least_one, check_port, one_sentence, program
from alignxplore.processes import Family, end_all
from alignxplore.serving.endpoint import is_url
from alignxplore.serving.server import LIMIT, ServerError, announced, open_to_anybody, taken

DEVICES = ("cuda", "cpu")
_GRACE = 40.0  # seconds: each server ends its engine first, which may take half of that


@dataclass(kw_only=True)
class JudgesOptions:
    """Which judges, and where."""

    models: str = option('"name=folder or hub id ...", or one a line')
    host: str = option("address to listen at: this machine's in the cluster, for training on other nodes", "127.0.0.1")
    advertise: str | None = option(
        "address in the JUDGES= line; default: host, or this machine's name for 0.0.0.0", None
    )
    port: int = option("of the first judge; the next ones follow", 8000)
    device: str = option("cuda or cpu", "cuda")
    gpus: int | None = option("how many to use; default: all that CUDA_VISIBLE_DEVICES or nvidia-smi name", None)
    tp: int = option("GPUs of one copy", 1)
    replicas: int | None = option("copies of each judge; default: what its share of the GPUs holds; CPU: 1", None)
    max_model_len: int | None = option("longest prompt; default: what the model was made for", None)
    limit: float = option("seconds that a judge may take to come up", LIMIT)
    logs: Path = option("what each server says: LOGS/name.log", Path("outputs/judges"))
    judges_file: Path | None = option("also write the line there, for a script that waits for it", None)
    python: str = option("interpreter of the servers", sys.executable)
    check: bool = option("look at models, GPUs and ports, start nothing", False)

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ValueError(f"--device {self.device}: one of {', '.join(DEVICES)}")
        at_least_one(self, "gpus", "tp", "replicas", "max_model_len", "limit")
        names = [name for name, _ in _named(self.models)]
        if not names:
            raise ValueError("--models names no judge")
        if doubles := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"--models has two judges named {doubles[0]}: give each a name of its own, name=model")
        check_port(self.port, least=1, most=65536 - len(names))


@dataclass(frozen=True)
class Judge:
    """One judge: what it is called, its model, where it is served, on which GPUs."""

    name: str
    model: str
    port: int
    gpus: tuple[str, ...]  # none on a CPU
    replicas: int

    @property
    def place(self) -> str:
        """What `--check` says of it."""
        gpus = f"GPUs {','.join(self.gpus)}, " if self.gpus else ""
        return f"{self.name}: {self.model}, {self.replicas} copies, {gpus}port {self.port}"


def placed(options: JudgesOptions) -> list[Judge]:
    """The judges, on equal shares of the GPUs. Raises a ValueError if there are fewer GPUs, or the copies do not
    fit, a UserError if torch cannot use them."""
    specs, devices = _named(options.models), [] if options.device == "cpu" else visible_gpus()
    if devices and options.gpus and options.gpus > len(devices):
        raise ValueError(
            f"--gpus {options.gpus}: {len(devices)} may be used here (CUDA_VISIBLE_DEVICES, nvidia-smi); ask for "
            f"{len(devices)} or fewer"
        )
    devices = devices[: options.gpus]
    share, replicas = len(devices) // len(specs), options.replicas or 1
    if options.device != "cpu":
        if not devices:
            raise ValueError("--device cuda: there is no GPU here that may be used (CUDA_VISIBLE_DEVICES, nvidia-smi)")
        refuse_unusable_gpu("--device cpu", options.python)
        replicas = options.replicas or share // options.tp
        if not 1 <= replicas * options.tp <= share:
            raise ValueError(
                f"{len(devices)} GPUs for {len(specs)} judges leave {share} each; {replicas} copies of "
                f"TP={options.tp} do not fit"
            )
    judges = []
    for i, (name, model) in enumerate(specs):
        gpus = tuple(devices[i * share : i * share + replicas * options.tp])
        judges.append(Judge(name, model, options.port + i, gpus, replicas))
    return judges


def _named(models: str) -> list[tuple[str, str]]:
    """(name, model) of each; one without a name is called as its folder is."""
    pairs = []
    for spec in items(models):
        name, equals, model = spec.partition("=")
        pairs.append((name, model) if equals and "/" not in name else (Path(spec).name, spec))
    return pairs


def judges_line(options: JudgesOptions, judges: Sequence[Judge]) -> str:
    """`name=URL name=URL`, as seen by who trains."""
    default = socket.gethostname() if options.host == "0.0.0.0" else options.host
    return " ".join(f"{judge.name}=http://{options.advertise or default}:{judge.port}/v1" for judge in judges)


def look(options: JudgesOptions, judges: Sequence[Judge]) -> NoReturn:
    """Say where each would be, and what stands in the way; exit code 1 if something does."""
    exit_code = 0
    for judge in judges:
        print(judge.place, file=sys.stderr)
        for problem in filter(None, (_missing(judge.model), taken(options.host, judge.port))):
            exit_code = 1
            print(f"{program()}: {problem}", file=sys.stderr)
    print(f'JUDGES="{judges_line(options, judges)}"')
    sys.exit(exit_code)


def _missing(model: str) -> str | None:
    path = model.startswith((".", "/", "~")) or model.count("/") > 1  # anything else is a hub id
    return f"no such model folder: {model}" if path and not is_url(model) and not Path(model).exists() else None


def serve_judges(options: JudgesOptions, arguments: Sequence[str]) -> NoReturn:
    """Serve until asked to end (exit code 130 or 143), or until a server ends (1).

    Args:
        arguments: more of them, for every `vllm serve`.
    """
    judges = checked(lambda: placed(options))
    if problem := open_to_anybody(options.host, arguments):
        raise ServerError(problem)
    if options.check:
        look(options, judges)
    for judge in judges:
        if problem := taken(options.host, judge.port):
            raise ServerError(f"judge '{judge.name}': {problem}; end what listens there, or give another --port")
    line, families = judges_line(options, judges), []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through the finally below
    options.logs.mkdir(parents=True, exist_ok=True)
    if options.judges_file:
        options.judges_file.unlink(missing_ok=True)
    try:
        for judge in judges:
            families.append(_start(options, judge, arguments))
        names = " ".join(judge.name for judge in judges)
        print(
            f"{program()}: starting {names} with {judges[0].replicas} copies each (a large model takes minutes); "
            f"logs: {options.logs}/",
            file=sys.stderr,
        )
        for judge, family in zip(judges, families):
            _wait_for(options.logs / f"{judge.name}.ready", judge, family)
        print(f'JUDGES="{line}"', flush=True)
        if options.judges_file:
            _write(options.judges_file, line)
        while all(family.poll() is None for family in families):
            time.sleep(0.5)
        raise ServerError(f"a server ended by itself; see {options.logs}/")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_all(families)


def _start(options: JudgesOptions, judge: Judge, arguments: Sequence[str]) -> Family:
    words = [options.python, "-m", "alignxplore.serving", judge.model, "--port", str(judge.port)]
    words += [
        "--log",
        str(options.logs / f"{judge.name}.log"),
        "--host",
        options.host,
        "--limit",
        f"{options.limit:g}",
    ]
    words += ["--served-model-name", judge.name]
    words += ["--max-model-len", str(options.max_model_len)] if options.max_model_len else []
    words += ["--tensor-parallel-size", str(options.tp), "--data-parallel-size", str(judge.replicas), *arguments]
    environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ",".join(judge.gpus)} if judge.gpus else {})
    with (options.logs / f"{judge.name}.ready").open("wb") as output:
        return Family(words, environment=environment, grace=_GRACE, stdout=output, stderr=output)


def _wait_for(output: Path, judge: Judge, family: Family) -> None:
    while announced(output) is None:
        if family.poll() is not None:
            raise ServerError(f"judge '{judge.name}' did not come up:\n{output.read_text(errors='replace').strip()}")
        time.sleep(0.5)
    if family.poll() is not None:
        raise ServerError(f"judge '{judge.name}' has ended; see {output.with_suffix('.log')}")


def _write(path: Path, line: str) -> None:
    """Aside, then rename: who waits for the file finds it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial")
    aside.write_text(f"{line}\n")
    aside.replace(path)


if __name__ == "__main__":
    with one_sentence():
        serve_judges(*parse_known(JudgesOptions, __doc__))
