"""The whole path with tiny models on a CPU: data, SFT, streaming GRPO, evaluation, a table and plots.

    python -m alignxplore.quickstart --out runs/quickstart    # what ./quickstart.sh runs once the environment is made

Interrupted? Run the same command again: what is finished is kept. Every step is made of ordinary commands of this
repository, which are printed before they run; what they say is in OUT/logs. Other sizes or another seed need another
folder."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import Plain, option, run
from alignxplore.environment import ROOT
from alignxplore.quickstart import films, other, world
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.start import carry_out


@dataclass(kw_only=True)
class QuickstartOptions(Plain):
    """Which list, and where."""

    world: bool = option("the simulated world instead of people's choices", False)
    out: str = option("where everything goes; default: runs/quickstart, or runs/world", "")
    evaluate: str = option(
        "raw folder of another MovieLens edition: only evaluate the trained models of --out on its persons", ""
    )
    check: bool = option("print the steps, which are done and how long the others take; start nothing", False)

    def __post_init__(self) -> None:
        if self.world and self.evaluate:
            raise ValueError("--evaluate: the persons of another edition are for models of films, not of --world")


def quickstart(options: QuickstartOptions) -> str:
    """Run the list, or say what it would do."""
    out = Path(options.out or ROOT / "runs" / ("world" if options.world else "quickstart")).resolve()
    results = {"results": "results.json", "report": "report.html"}
    if options.evaluate:
        others = other.OtherSettings.of(out, Path(options.evaluate).resolve())
        return carry_out(Pipeline.of(others, other.steps(others), **results), options.check)
    results["figures"] = "figures"
    if options.world:
        simulated = world.WorldSettings.read(out=out)
        return carry_out(Pipeline.of(simulated, world.steps(simulated), **results), options.check)
    settings = films.FilmSettings.read(out=out)
    films.check_raw(settings.data, "DATA=")
    text = carry_out(Pipeline.of(settings, films.steps(settings), **results), options.check)
    return text if options.check else f"{text}\nask it   {asking(out)}"


def asking(out: Path) -> str:
    """The line for a shell that asks what was trained, in the environment of this process."""
    words = ["python", "-m", "alignxplore.ask", *(["--run", str(out)] if out != ROOT / "runs/quickstart" else [])]
    activation = Path(sys.prefix, "bin/activate")
    return (f"source {shlex.quote(str(activation))} && " if activation.is_file() else "") + shlex.join(words)


if __name__ == "__main__":
    run(
        quickstart,
        QuickstartOptions,
        f"{__doc__}\n\n{films.FilmSettings.told()}\n\nWith --world:\n{world.WorldSettings.told()}",
    )
