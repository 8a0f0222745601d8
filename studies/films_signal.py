"""SFT rows of the quick start on films with targets that a signal model chose. The steps of `studies/films_signal.sh`,
which says what they do.

    python studies/films_signal.py --check
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import run
from alignxplore.environment import ROOT
from alignxplore.quickstart.films import BENCHMARK, FilmSettings, finished, policies, stages_of, train_sft
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.settings import Number, Settings, setting, taken
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Command, Server, Step, command
from alignxplore.quickstart.study import StudyOptions


@dataclass(frozen=True, kw_only=True)
class FilmSignalSettings(Settings):
    """Sizes, and what is chosen otherwise than at full size."""

    out: Path = setting("folder of the study", ROOT / "runs/studies/films_signal", decides=False)
    base: Path = setting("a finished quick start on films", ROOT / "runs/quickstart")
    seed: str = taken()
    signal: str = setting(
        "P(actual choice) of a target; a tiny model is hardly ever sure; published: 0.9", Number("0.5")
    )


def steps(settings: FilmSignalSettings, quick_start: FilmSettings) -> list[Step]:
    """Synthesis, SFT from the same untrained policy, evaluation beside the quick start's own."""
    base, out, base_model = settings.base, settings.out, settings.base / "models/base"
    stages = stages_of(quick_start, base / "data")
    names = ("--names_of", base_model, "--port", 0)
    teacher = Server("teacher", command("python", "-m", "alignxplore.films.teacher", *names))
    policy_folders = policies(base) | {"synthesised": out / "sft"}
    synthesis = stages.synthesise(base / "data/synthesis.jsonl", out / "synthesis", settings.signal, teacher)
    return [
        Step("synthesis", 300, [synthesis], [teacher]),
        Step("sft", 20, [train_sft(stages, base_model, out / "synthesis/sft.jsonl", out / "sft")]),
        Step("summaries", 200, [stages.write_summaries(out / "eval", policy_folders, "--at_once", 2)]),
        Step("scores", 150, [stages.score_summaries(out / "eval", list(policy_folders))]),
        Step("results", 20, _results(settings)),
    ]


def _results(settings: FilmSignalSettings) -> list[Command]:
    """The tables, and what the summaries state."""
    base, out = settings.base, settings.out
    words = ("python", "-m", "alignxplore.films.statements", "--data", base / "data" / BENCHMARK)
    arguments = ("--summaries", out / "eval", "--policies", "sft", "sft+rl", "synthesised")
    return [
        command(*words, *arguments, "--tokenizer", base / "models/blank", "--out", out / "statements.json"),
        command("cp", out / "eval/results.json", out / "eval/report.md", out),
    ]


def study(options: StudyOptions) -> str:
    """Run the study, or say what it would do."""
    base = FilmSignalSettings.read(seed="").base
    quick_start = finished(base)
    settings = FilmSignalSettings.read(seed=str(quick_start.seed))
    results = {
        "results": "results.json",
        "funnel": "synthesis/funnel.png",
        "foresight": "synthesis/signal_scores/foresight.json",
    }
    return carry_out(Pipeline.of(settings, steps(settings, quick_start), **results), options.check)


if __name__ == "__main__":
    run(study, StudyOptions, f"{__doc__}\n{FilmSignalSettings.told()}")
