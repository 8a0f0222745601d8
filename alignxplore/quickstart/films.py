"""The quick start on people's real choices: MovieLens, every stage of the method, a policy and two judges of a million
parameters each.

Persons are split by a hash: those whose choices the policy learns from, those of each judge, those that RL is
validated on, and those of the test, who are looked at once. Another seed: other splits, windows, models and draws.
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import items
from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.quickstart.folder import settings_of
from alignxplore.quickstart.settings import Number, Settings, setting
from alignxplore.quickstart.stages import Stages, rl_parquet
from alignxplore.quickstart.steps import Command, Step, command

# Groups of persons: name, share of all, and at most so many. Another seed begins with another group.
GROUPS = (("policy", 0.30, 200), ("judge", 0.15, 100), ("judge2", 0.15, 100), ("val", 0.06, 40), ("test", 0.34, 250))
SHOWN = 12  # choices before a target
BENCHMARK = "movielens_upi.jsonl"


@dataclass(frozen=True, kw_only=True)
class FilmSettings(Settings):
    """All defaults fit two cores and 8 GB."""

    data: Path = setting("raw folder of a MovieLens edition", ROOT / "data/movielens/ml-latest-small")
    seed: int = setting("seed of splits, windows, models and draws", 1)
    test_windows: int = setting("windows of each test person: what the intervals of the table need", 7)
    windows: int = setting("windows of each person whose choices the policy learns from", 60)
    judge_windows: int = setting("windows of each person whose choices a judge learns from", 100)
    sft_windows: int = setting("windows that the teacher describes", 2500)
    rl_steps: int = setting("RL updates", 40)
    rl_lr: str = setting("their learning rate", Number("2e-4"))
    sft_options: str = setting("more options of sft/sft.py", "")


class UnfinishedError(UserError):
    """A folder that holds no finished quick start on films."""


def finished(folder: Path) -> FilmSettings:
    """The settings that the finished quick start in a folder was made with.

    Raises:
        UnfinishedError: none is there, or one of another kind.
    """
    if not all((folder / name).is_file() for name in ("settings", "results.json")):
        raise UnfinishedError(f"{folder} holds no finished quick start; run ./quickstart.sh --out {folder} first")
    found = settings_of(folder)
    if missing := [name for name in FilmSettings(out=folder).deciding() if name not in found]:
        raise UnfinishedError(
            f"{folder} holds another kind of run, not a quick start on films ({missing[0]} is not in its settings); "
            "give the folder of one"
        )
    return FilmSettings.read(found, out=folder)


def persons(seed: int) -> dict[str, tuple[float, float]]:
    """Group → the range of person hashes that it gets; disjoint, and others for another seed (five in all)."""
    turned = GROUPS[(seed - 1) % len(GROUPS) :] + GROUPS[: (seed - 1) % len(GROUPS)]
    ranges, low = {}, 0.0
    for name, share, _ in turned:
        ranges[name] = (round(low, 2), round(low + share, 2))
        low += share
    return ranges


def stages_of(settings: FilmSettings, data: Path) -> Stages:
    """How the models of a run are trained, and scored on the benchmark in `data`."""
    return Stages(
        folder=settings.out,
        benchmark=f"movielens={data / BENCHMARK}",
        scoring=("--cues", "chance", "popularity", "content tally", "--at_once", 2),
        seed=settings.seed,
        rl_steps=settings.rl_steps,
        rl_lr=settings.rl_lr,
    )


def policies(out: Path) -> dict[str, Path]:
    """The policies of a run, in the order of their training."""
    return {"untrained": out / "models/base", "sft": out / "models/sft", "sft+rl": out / "rl/model"}


def steps(settings: FilmSettings) -> list[Step]:
    """From raw ratings to the table."""
    out, data, models = settings.out, settings.out / "data", settings.out / "models"
    stages, written = stages_of(settings, data), policies(out)
    judge, judge2 = stages.judge(out), stages.judge(out, "judge2")
    train, val = data / "rl_train.jsonl", data / "rl_val.jsonl"
    more = items(settings.sft_options)
    rl = stages.train_rl(
        judge,
        models / "sft",
        train.with_suffix(".parquet"),
        out / "rl",
        VAL_JUDGES=f"judge2={judge2.url}",
        JUDGE_TOKENIZER=models / "blank",
        BATCH=8,
        MINI_BATCH=8,
        ROLLOUTS=8,
    )
    return [
        Step("data", 8, [[_build(settings, *group) for group in GROUPS]]),
        Step("blank", 8, [_blank(settings)]),
        Step("lessons", 260, [_lessons(settings)]),
        Step("sft_rows", 8, [_sft_rows(settings)]),
        Step("sft", 90, [stages.train_sft(models / "base", data / "sft.jsonl", models / "sft", *more)]),
        Step("rl_data", 8, [*_rl_rows(settings, train, val), *rl_parquet(train, val)]),
        Step("rl", 330, [rl], [judge, judge2]),
        Step("summaries", 150, [stages.write_summaries(out / "eval", written, "--at_once", 2)]),
        Step("scores", 120, [stages.score_summaries(out / "eval", list(written))]),
        Step("figures", 20, _figures(settings)),
    ]


def _build(settings: FilmSettings, group: str, _: float, most: int) -> Command:
    """The windows of one group of persons. Of a test row two thirds are shown, as everywhere in recommendation."""
    test = group == "test"
    windows = {"policy": settings.windows, "test": settings.test_windows, "val": 8}.get(group, settings.judge_windows)
    words = ("python", "-m", "alignxplore.datasets", "build", "movielens", "--raw", settings.data)
    protocol = ("--protocol", "matched", "--seed", settings.seed)
    rows = ("--windows", windows, "--length", SHOWN * 3 // 2 if test else SHOWN, "--users", most)
    whose = ("--persons", *persons(settings.seed)[group])
    return command(*words, *protocol, *rows, *whose, "--out", settings.out / "data" / _file(group))


def _file(group: str) -> str:
    return BENCHMARK if group == "test" else f"{group}.jsonl"


def _blank(settings: FilmSettings) -> Command:
    words = ("python", "-m", "alignxplore.films.model", "--out", settings.out / "models/blank")
    return command(*words, "--data", settings.out / "data/policy.jsonl", "--seed", settings.seed)


def _lessons(settings: FilmSettings) -> list[Command]:
    """All at once; the second judge has its own persons and words and is never used as reward."""
    data, models, seed = settings.out / "data", settings.out / "models", settings.seed

    def lesson(kind: str, group: str, model: str, seed: int, *more: object) -> Command:
        words = ("python", "-m", "alignxplore.films.lessons", kind, "--base", models / "blank")
        return command(*words, "--data", data / _file(group), "--out", models / model, "--seed", seed, *more)

    return [
        lesson("reader", "policy", "base", seed),
        lesson("judge", "judge", "judge", seed + 10),
        lesson("judge", "judge2", "judge2", seed + 20, "--phrasing", 1),
    ]


def _sft_rows(settings: FilmSettings) -> Command:
    words = ("python", "-m", "alignxplore.films.rows", "sft", "--data", settings.out / "data/policy.jsonl")
    where = ("--out", settings.out / "data/sft.jsonl", "--names_of", settings.out / "models/blank")
    return command(*words, *where, "--limit", settings.sft_windows, "--seed", settings.seed)


def _rl_rows(settings: FilmSettings, train: Path, val: Path) -> list[Command]:
    data, words = settings.out / "data", ("python", "-m", "alignxplore.films.rows", "rl", "--seed", settings.seed)
    return [
        command(*words, "--data", data / _file(group), "--out", rows)
        for group, rows in (("policy", train), ("val", val))
    ]


def _figures(settings: FilmSettings) -> list[Command]:
    """Plots; what the summaries state, against the true tally; one person, found by a rule."""
    out, results, data = settings.out, settings.out / "eval/results.json", settings.out / "data" / BENCHMARK
    curves = ("--run", out / "rl/metrics.jsonl", "--out", out / "figures/rl_curves.png")
    stated = ("--summaries", out / "eval", "--policies", "sft", "sft+rl", "--tokenizer", out / "models/blank")
    return [
        command("python", "figures/plots.py", "--results", results, "--out", out / "figures"),
        command("python", "figures/rl_curves.py", *curves),
        command(
            "python", "-m", "alignxplore.films.statements", "--data", data, *stated, "--out", out / "statements.json"
        ),
        command(
            "python",
            "-m",
            "alignxplore.films.example",
            "--data",
            data,
            "--eval",
            out / "eval",
            "--out",
            out / "example.md",
        ),
        command("cp", results, out / "eval/report.md", out / "eval/report.html", out),
    ]
