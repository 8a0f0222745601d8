"""The whole path with tiny models on a CPU: data, SFT, streaming GRPO, evaluation, a table and plots.

    python -m alignxplore.quickstart --out runs/quickstart    # what ./quickstart.sh runs once the environment is made

Interrupted? Run the same command again: what is finished is kept. Every step is made of ordinary commands of this
repository, which are printed before they run; what they say is in OUT/logs. Other sizes or another seed need another
folder."""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import Plain, option, run
from alignxplore.environment import ROOT
from alignxplore.quickstart import films, world
from alignxplore.quickstart.plan import Pipeline, carry_out


@dataclass(kw_only=True)
class QuickstartOptions(Plain):
    """Which list, and where."""

    world: bool = option("the simulated world instead of people's choices", False)
    out: Path = option("where everything goes", ROOT / "runs/quickstart")
    check: bool = option("print the steps, which are done and how long the others take; start nothing", False)


def quickstart(options: QuickstartOptions) -> str:
    """Run the list, or say what it would do."""
    out = options.out.resolve()
    results = {"results": "results.json", "report": "report.html", "figures": "figures"}
    if options.world:
        simulated = world.WorldSettings.read(out=out)
        return carry_out(Pipeline.of(simulated, world.steps(simulated), **results), options.check)
    settings = films.FilmSettings.read(out=out)
    return carry_out(Pipeline.of(settings, films.steps(settings), **results), options.check)


if __name__ == "__main__":
    run(
        quickstart,
        QuickstartOptions,
        f"{__doc__}\n\n{films.FilmSettings.told()}\n\nWith --world:\n{world.WorldSettings.told()}",
    )
