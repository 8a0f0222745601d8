"""Quick starts on films of several seeds, and a control of RL. The steps of `studies/films_seeds.sh`, which says what
they do.

    python studies/films_seeds.py --check
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import items, run
from alignxplore.environment import ROOT
from alignxplore.quickstart.films import FilmSettings, finished, rl_judges, stages_of, train_rl
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.settings import Settings, setting
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Step, command
from alignxplore.quickstart.study import StudyOptions

CONTROL = "shuffled rewards"


@dataclass(frozen=True, kw_only=True)
class FilmSeedsSettings(Settings):
    """Which runs."""

    out: Path = setting("folder of the study", ROOT / "runs/studies/films_seeds", decides=False)
    bases: str = setting(
        "finished quick starts on films, of different seeds", "runs/quickstart runs/quickstart2 runs/quickstart3"
    )


def steps(settings: FilmSeedsSettings, runs: list[FilmSettings]) -> list[Step]:
    """RL and evaluation as in the first run, with rewards that are dealt out at random; then one table of all."""
    out, first_run = settings.out, runs[0]
    stages, judges = stages_of(first_run, first_run.out / "data"), rl_judges(first_run, out)
    control = train_rl(first_run, judges, out / "rl", "streaming.shuffle_rewards=true")
    policies = {CONTROL: out / "rl/model"}
    arguments = ("--runs", *(run.out for run in runs), "--control", f"{CONTROL}={out / 'eval'}", "--out", out)
    return [
        Step("rl", 450, [control], judges),
        Step("summaries", 90, [stages.write_summaries(out / "eval", policies)]),
        Step("scores", 60, [stages.score_summaries(out / "eval", list(policies))]),
        Step("table", 5, [command("python", "studies/pool_seeds.py", *arguments)]),
    ]


def study(options: StudyOptions) -> str:
    """Run the study, or say what it would do."""
    settings = FilmSeedsSettings.read()
    runs = [finished((ROOT / base).resolve()) for base in items(settings.bases)]
    return carry_out(Pipeline.of(settings, steps(settings, runs), report="report.md"), options.check)


if __name__ == "__main__":
    run(study, StudyOptions, f"{__doc__}\n{FilmSeedsSettings.told()}")
