"""What a pipeline is made of: steps of ordinary commands, each run once.

    judge = model_server(out, "judge", out / "models/judge")
    Step("data", 15, [command("python", "-m", "alignxplore.world", "--out", out / "data")])
    Step("pupils", 90, [[command(...), command(...)]])                  # the two side by side
    Step("rl", 350, [command("bash", "run.sh", JUDGES=f"judge={judge.url}")], servers=[judge])
    Step("figures", 6, [command(...)], after=["data"])                  # may run beside what comes between

`alignxplore/quickstart/runner.py` runs a list of them.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignxplore.environment import ROOT

# How a launch script declares a setting, and how it names another one that it runs (CONTRIBUTING.md, Style).
_DECLARED = re.compile(r"^([A-Z_]+)=\$\{\1:-", re.MULTILINE)
_LAUNCHED = re.compile(r"\$ROOT/([\w/]+\.sh)")
PASSED_ON = {"NPROC"}  # a setting that may come from outside: on how many processes SFT is done


@dataclass(frozen=True)
class Command:
    """An ordinary command of the repository, run in its root."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str | None], ...] = ()  # variables; None: taken away

    def with_urls(self, urls: dict[str, str]) -> "Command":
        """The same with {NAME} of each server replaced by where it is found."""

        def put(text: str) -> str:
            for name, url in urls.items():
                text = text.replace(f"{{{name}}}", url)
            return text

        environment = tuple((name, value if value is None else put(value)) for name, value in self.environment)
        return Command(tuple(map(put, self.words)), environment)

    def environment_in(self, outside: Mapping[str, str], common: Mapping[str, str]) -> dict[str, str]:
        """The variables that it is run with. Of a launch script's settings those that the command does not name have
        the script's defaults: what was exported for another run decides nothing here.

        Args:
            outside: what is exported.
            common: what every command is given.
        """
        scripts = [word for word in self.words if word.endswith(".sh") and (ROOT / word).is_file()]
        foreign_names = set[str]().union(*map(script_settings, scripts)) - PASSED_ON
        rest = {name: value for name, value in outside.items() if name not in foreign_names}
        variables: dict[str, str | None] = {**rest, **common, **dict(self.environment)}
        return {name: value for name, value in variables.items() if value is not None}

    def shown(self, out: Path) -> str:
        """As a line for a shell, in which `out` is $OUT."""
        unset = [word for name, value in self.environment if value is None for word in ("-u", name)]
        assignments = [f"{name}={value}" for name, value in self.environment if value is not None]
        prefix = ["env", *unset, *assignments] if self.environment else []
        return " ".join(_quoted(word, str(out)) for word in (*prefix, *self.words))


def command(*words: object, **environment: object) -> Command:
    """`command("python", "train.py", "--seed", 1, OMP_NUM_THREADS=2)`; a variable that is None is taken away."""
    variables = ((name, None if value is None else str(value)) for name, value in environment.items())
    return Command(tuple(map(str, words)), tuple(variables))


def script_settings(script: str) -> set[str]:
    """The variables that a launch script reads as its settings (NAME=${NAME:-default}), and those of the scripts that
    it runs. `script`: its path in the repository."""
    text = (ROOT / script).read_text(encoding="utf-8")
    return set(_DECLARED.findall(text)).union(*map(script_settings, _LAUNCHED.findall(text)))


def _quoted(word: str, out: str) -> str:
    name, equals, value = word.partition("=")
    if equals and name.isidentifier():
        return f"{name}={_quoted(value, out)}"
    if out not in word:
        return shlex.quote(word)
    return '"$OUT"'.join(shlex.quote(part) if part else "" for part in word.split(out))


@dataclass(frozen=True)
class Server:
    """Started before the first step that needs it, ended after the last one; in a command of these steps `url` stands
    for its address."""

    name: str
    command: Command  # it prints "ready: WHAT at URL" and stays

    @property
    def url(self) -> str:
        return f"{{{self.name}}}"


# Of a tiny model's server on a CPU: 16,384 tokens are 64 prompts at once. A whole GiB, the least that vLLM can be told
# there, fills up with prompts that nobody asks again.
CACHE = ("--num-gpu-blocks-override", 512)


def model_server(out: Path, name: str, model: Path, share: Sequence[object] = CACHE) -> Server:
    """A server of a folder with a model; what vLLM says goes to OUT/logs/serve_NAME.log. No key is asked for.

    Args:
        share: options that say how much memory it takes; by default what a CPU needs.
    """
    words = ("python", "-m", "alignxplore.serving", model, "--log", out / f"logs/serve_{name}.log")
    sizes = ("--served-model-name", name, "--max-model-len", 2048, *share)
    return Server(name, command(*words, *sizes, VLLM_API_KEY=None))


@dataclass(frozen=True)
class Step:
    """Something that is done once. It is done again when its commands are others than those that did it."""

    name: str
    seconds: int  # that it takes on two cores, for the time left
    commands: Sequence[Command | Sequence[Command]]  # one after the other; those of an inner list side by side
    servers: Sequence[Server] = ()
    after: Sequence[str] | None = None  # names of steps that must be done before; None: the one before it in the list

    @property
    def rows(self) -> list[list[Command]]:
        """Its commands; those of a row run side by side."""
        return [[each] if isinstance(each, Command) else list(each) for each in self.commands]

    def lines(self, out: Path) -> list[str]:
        """What decides whether it is done: its commands, and those of its servers, as lines for a shell."""
        commands = [*(server.command for server in self.servers), *(one for row in self.rows for one in row)]
        return [one.shown(out) for one in commands]


def order(steps: Sequence[Step]) -> dict[str, tuple[str, ...]]:
    """Step → the steps that must be done before it.

    Raises:
        ValueError: a name that is there twice, or that is not the name of a step further up.
    """
    before: dict[str, tuple[str, ...]] = {}
    last: tuple[str, ...] = ()
    for step in steps:
        needed = last if step.after is None else tuple(step.after)
        if step.name in before:
            raise ValueError(f"two steps are called '{step.name}'")
        if unknown := [name for name in needed if name not in before]:
            raise ValueError(f"step '{step.name}' comes after '{unknown[0]}', which is no step before it")
        before[step.name] = needed
        last = (step.name,)
    return before


def length(seconds: dict[str, float], before: dict[str, tuple[str, ...]], at_once: int) -> float:
    """Seconds that the steps in `seconds` take if each begins once it may, `at_once` of them side by side.

    Args:
        seconds: of each step that is not done, in the order in which they are chosen.
        before: what `order` says of all steps.
    """
    now, waiting = 0.0, dict(seconds)
    running: dict[str, float] = {}  # when each ends
    while waiting or running:
        for name in list(waiting):
            if len(running) < at_once and not any(other in waiting or other in running for other in before[name]):
                running[name] = now + waiting.pop(name)
        now = min(running.values())
        running = {name: end for name, end in running.items() if end > now}
    return now
