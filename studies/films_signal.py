"""SFT rows of the quick start on films by the whole synthesis instead of the teacher alone. The steps of
`studies/films_signal.sh`, which says what they do.

    python studies/films_signal.py --check
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import run
from alignxplore.environment import ROOT
from alignxplore.quickstart.films import BENCHMARK, FilmSettings, finished, persons, policies, stages_of
from alignxplore.quickstart.plan import Pipeline, carry_out
from alignxplore.quickstart.settings import Settings, setting, taken
from alignxplore.quickstart.steps import Command, Server, Step, command
from alignxplore.quickstart.study import StudyOptions

THIRD = 6  # choices that a round reads, and those among which it looks for targets


@dataclass(frozen=True, kw_only=True)
class FilmSignalSettings(Settings):
    """Sizes, and what is chosen otherwise than at full size."""

    out: Path = setting("folder of the study", ROOT / "runs/studies/films_signal", decides=False)
    base: Path = setting("a finished quick start on films", ROOT / "runs/quickstart")
    seed: str = taken()
    windows: int = setting("windows of each person whose choices the policy learns from", 10)
    signal: str = setting("0: every choice can be a target, as a tiny model is sure of none; published: 0.9", "0")
    epochs: int = setting("of SFT", 2)
    port: int = setting("of the teacher", 8778, decides=False)


def steps(settings: FilmSignalSettings, trained: FilmSettings) -> list[Step]:
    """Windows, synthesis, SFT from the same untrained policy, evaluation beside the quick start's own."""
    base, out, untrained = settings.base, settings.out, settings.base / "models/base"
    stages = stages_of(trained, base / "data")
    names = ("--names_of", untrained, "--port", settings.port)
    teacher = Server("teacher", command("python", "-m", "alignxplore.films.teacher", *names))
    compared = policies(base) | {"synthesised": out / "sft"}
    rows, epochs = out / "synthesis/sft.jsonl", ("--num_train_epochs", settings.epochs)
    synthesis = stages.synthesise(out / "movielens.jsonl", out / "synthesis", settings.signal, teacher)
    return [
        Step("windows", 3, [_build(settings, trained)]),
        Step("synthesis", 500, [synthesis], [teacher]),
        Step("sft", 90, [stages.train_sft(untrained, rows, out / "sft", *epochs)]),
        Step("summaries", 200, [stages.write_summaries(out / "eval", compared, "--at_once", 2)]),
        Step("scores", 150, [stages.score_summaries(out / "eval", list(compared))]),
        Step("results", 20, _results(settings)),
    ]


def _build(settings: FilmSignalSettings, trained: FilmSettings) -> Command:
    """Windows of the persons of whom the quick start's SFT rows are."""
    words = ("python", "-m", "alignxplore.datasets", "build", "movielens", "--raw", trained.data)
    rows = ("--protocol", "matched", "--windows", settings.windows, "--length", 3 * THIRD - 1)
    whose = ("--persons", *persons(trained.seed)["policy"], "--seed", trained.seed)
    return command(*words, *rows, *whose, "--out", settings.out / "movielens.jsonl")


def _results(settings: FilmSignalSettings) -> list[Command]:
    """The tables, and what the summaries state."""
    base, out = settings.base, settings.out
    words = ("python", "-m", "alignxplore.films.statements", "--data", base / "data" / BENCHMARK)
    stated = ("--summaries", out / "eval", "--policies", "sft", "sft+rl", "synthesised")
    return [
        command(*words, *stated, "--tokenizer", base / "models/blank", "--out", out / "statements.json"),
        command("cp", out / "eval/results.json", out / "eval/report.md", out),
    ]


def study(options: StudyOptions) -> str:
    """Run the study, or say what it would do."""
    base = FilmSignalSettings.read(seed="").base
    trained = finished(base)
    settings = FilmSignalSettings.read(seed=str(trained.seed))
    results = {
        "results": "results.json",
        "funnel": "synthesis/funnel.png",
        "foresight": "synthesis/signal_scores/foresight.json",
    }
    return carry_out(Pipeline.of(settings, steps(settings, trained), **results), options.check)


if __name__ == "__main__":
    run(study, StudyOptions, f"{__doc__}\n{FilmSignalSettings.told()}")
