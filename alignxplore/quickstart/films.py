"""The quick start on people's real choices: MovieLens, every stage of the method, a policy and two judges of 0.8
million parameters each.

Persons are split by a hash: those whose choices the policy learns from, those of each judge, those that RL is
validated on, and those of the test, who are looked at once. Another seed: other splits, windows, models and draws.
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import items
from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.quickstart.folder import settings_of
from alignxplore.quickstart.settings import Number, SettingError, Settings, setting
from alignxplore.quickstart.stages import Stages, rl_parquet
from alignxplore.quickstart.steps import Command, Server, Step, command

# Groups of persons and their shares of all; another seed begins with another group.
GROUPS = (("policy", 0.30), ("judge", 0.15), ("judge2", 0.15), ("val", 0.06), ("test", 0.34))
MOST_PERSONS = {"policy": 200, "judge": 100, "judge2": 100, "val": 40, "test": 250}  # of a large edition
SHOWN = 12  # choices that a text is about
LONGER = SHOWN * 3 // 2  # of which two thirds are SHOWN
THIRD = 9  # choices that a round of synthesis reads, and those among which it then looks for targets
TARGETS = 8  # choices that a summary is judged by in RL
VAL_WINDOWS = 13  # of each person that RL is validated on
MAX_TOKENS = 112  # of an answer: the counts, and fifteen statements
# Blocks of 32 tokens, ten for an answer with its prompt: 64 answers at once in RL, 128 in evaluation.
RL_CACHE = "actor_rollout_ref.rollout.engine_kwargs.vllm.num_gpu_blocks_override=640"
WRITING = ("--at_once", 3, "--serve_arguments=--num-gpu-blocks-override 1280")
BENCHMARK = "movielens_upi.jsonl"
RATINGS = ("ratings.csv", "rating.csv", "ratings.dat", "u.data")  # as editions call them; packed: NAME.gz


@dataclass(frozen=True, kw_only=True)
class FilmSettings(Settings):
    """All defaults fit two cores and 12 GB."""

    data: Path = setting("raw folder of a MovieLens edition", ROOT / "data/movielens/ml-latest-small")
    seed: int = setting("seed of splits, windows, models and draws", 1, least=0)
    test_windows: int = setting("windows of each test person: what the intervals of the table need", 7)
    windows: int = setting("windows of each person whose choices the policy learns from", 60)
    judge_windows: int = setting("windows of each person whose choices a judge learns from", 100)
    sft_windows: int = setting("windows of each of these persons that the teacher describes", 12)
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
    settings = settings_of(folder)
    if missing := [name for name in FilmSettings(out=folder).deciding() if name not in settings]:
        raise UnfinishedError(
            f"{folder} holds another kind of run, not a quick start on films ({missing[0]} is not in its settings); "
            "give the folder of one"
        )
    return FilmSettings.read(settings, out=folder)


def check_raw(raw: Path, option: str) -> None:
    """Refuse what is no raw folder of one edition, before anything is made. Without the packages of the builder, which
    `--check` may not have, only a folder is asked for.

    Args:
        option: what it was given by, as it stands before it: `DATA=`.

    Raises:
        SettingError: no such folder. EditionError: the builder finds no edition in it, or several.
    """
    if not raw.exists():
        raise SettingError(f"{option}{raw}: no such folder; give the raw folder of a MovieLens edition")
    if not raw.is_dir():
        raise SettingError(f"{option}{raw}: a file; give the folder that holds it, or unpack an archive first")
    try:
        from alignxplore.quickstart.edition import check_edition
    except ModuleNotFoundError:
        return
    check_edition(raw, option)


def cut_seconds(raw: Path, files: int) -> int:
    """How long it takes to cut so many files of windows, each from all ratings: 1.1 s each, and 58 s for 746 MB
    (28.7 million ratings). A packed file has about a quarter of its bytes."""
    files_of_ratings = (path for name in RATINGS for path in raw.rglob(f"{name}*") if path.is_file())
    sizes = {path: path.stat().st_size for path in files_of_ratings}
    packed = sum(size for path, size in sizes.items() if path.suffix == ".gz")
    return round(files * (1.1 + 58 / 746e6 * (sum(sizes.values()) + 3 * packed)))


def persons(seed: int) -> dict[str, tuple[float, float]]:
    """Group → the range of person hashes that it gets; disjoint, and others for another seed (five in all)."""
    turned = GROUPS[(seed - 1) % len(GROUPS) :] + GROUPS[: (seed - 1) % len(GROUPS)]
    ranges, low = {}, 0.0
    for name, share in turned:
        ranges[name] = (round(low, 2), round(low + share, 2))
        low += share
    return ranges


def stages_of(settings: FilmSettings, data: Path) -> Stages:
    """How the models of a run are trained, and scored on the benchmark in `data`."""
    others = settings.out / "data/policy.jsonl"  # persons whose choices tell who takes what
    return Stages(
        folder=settings.out,
        benchmark=f"movielens={data / BENCHMARK}",
        scoring=(
            *("--cues", "chance", "popularity", "content tally"),
            *("--baselines", "bm25", *(f"{kind}={others}" for kind in ("item-knn", "als"))),
            *("--at_once", 2),
        ),
        seed=settings.seed,
        rl_steps=settings.rl_steps,
        rl_lr=settings.rl_lr,
        max_tokens=MAX_TOKENS,
    )


def train_sft(stages: Stages, model: Path, rows: Path, out: Path, *options: object) -> Command:
    """SFT of `model` on a few hundred synthesised rows."""
    return stages.train_sft(model, rows, out, "--num_train_epochs", 4, *options)


def rl_judges(settings: FilmSettings, out: Path) -> list[Server]:
    """The judge that gives the reward, and the one that only validates; what they say goes to the logs of `out`."""
    stages = stages_of(settings, settings.out / "data")
    return [stages.judge(out), stages.judge(out, "judge2")]


def train_rl(settings: FilmSettings, judges: list[Server], out: Path, *options: object) -> Command:
    """RL of the SFT model; the step needs `judges`."""
    run, (judge, second) = settings.out, judges
    stages, rows = stages_of(settings, run / "data"), run / "data/rl_train.parquet"
    chosen = {
        "VAL_JUDGES": f"{second.name}={second.url}",
        "JUDGE_TOKENIZER": run / "models/blank",
        "RESPONSE_LENGTH": MAX_TOKENS,
        "BATCH": 8,
        "MINI_BATCH": 8,
        "ROLLOUTS": 8,
        "TARGETS": TARGETS,
        "TOKENS_PER_GPU": 4096,
    }
    held_out = f"streaming.val_targets={TARGETS}"
    return stages.train_rl(judge, run / "models/sft", rows, out, held_out, RL_CACHE, *options, **chosen)


def policies(out: Path) -> dict[str, Path]:
    """The policies of a run, in the order of their training."""
    return {"untrained": out / "models/base", "sft": out / "models/sft", "sft+rl": out / "rl/model"}


def steps(settings: FilmSettings) -> list[Step]:
    """From raw ratings to the table."""
    out, data, models = settings.out, settings.out / "data", settings.out / "models"
    stages, written, groups = stages_of(settings, data), policies(out), persons(settings.seed)
    judges = rl_judges(settings, out)
    train, val = data / "rl_train.jsonl", data / "rl_val.jsonl"
    rows, more = settings.out / "synthesis/sft.jsonl", items(settings.sft_options)
    teacher = _teacher(settings)

    def cut(windows: Windows) -> Command:
        return build(windows, settings.data, settings.seed, out, groups[windows.group])

    return [
        Step("data", cut_seconds(settings.data, len(_windows(settings))), [cut(w) for w in _windows(settings)]),
        Step("blank", 6, [_blank(settings)]),
        Step("reader", 360, [_lesson(settings, "reader", "policy", "base")]),
        Step("judge", 110, [_lesson(settings, "judge", "judge", "judge", 10)], after=["blank"]),
        Step("synthesis", 110, [_synthesis(settings, teacher, judges[0])], [teacher, judges[0]], after=["judge"]),
        Step("judge2", 110, [_lesson(settings, "judge", "judge2", "judge2", 20, "--phrasing", 1)], after=["blank"]),
        Step(
            "sft",
            70,
            [train_sft(stages, models / "base", rows, models / "sft", *more)],
            after=["reader", "synthesis"],
        ),
        Step("rl_data", 4, [_rl_rows(train), _rl_rows(val), *rl_parquet(train, val)], after=["data"]),
        Step(
            "rl",
            150 + 10 * settings.rl_steps,
            [train_rl(settings, judges, out / "rl")],
            judges,
            after=["sft", "judge2", "rl_data"],
        ),
        Step("summaries", 173, [stages.write_summaries(out / "eval", written, *WRITING)]),
        Step("scores", 92, [stages.score_summaries(out / "eval", list(written))]),
        Step("figures", 14, _figures(settings)),
    ]


@dataclass(frozen=True)
class Windows:
    """A file of windows of one group of persons: of each at most `most`, with `length` choices before the target."""

    file: str
    group: str
    most: int
    length: int


def _windows(settings: FilmSettings) -> list[Windows]:
    """All that is cut from the choices. A row of RL has two stages, of 6 and 12 choices or of 12 and 6."""
    return [
        Windows("policy.jsonl", "policy", settings.windows, SHOWN),
        Windows("judge.jsonl", "judge", settings.judge_windows, SHOWN),
        Windows("judge2.jsonl", "judge2", settings.judge_windows, SHOWN),
        Windows("synthesis.jsonl", "policy", settings.sft_windows, 3 * THIRD - 1),
        Windows("rl_train_windows.jsonl", "policy", settings.windows, LONGER + TARGETS - 1),
        Windows("rl_val_windows.jsonl", "val", VAL_WINDOWS, LONGER + TARGETS - 1),
        benchmark_windows(settings),
    ]


def build(windows: Windows, raw: Path, seed: int, out: Path, whose: tuple[float, float] | None = None) -> Command:
    """Cut these windows from the raw files of an edition; `whose`: persons by their hashes, default: everybody's."""
    words = ("python", "-m", "alignxplore.datasets", "build", "movielens", "--raw", raw, "--protocol", "matched")
    rows = ("--windows", windows.most, "--length", windows.length, "--users", MOST_PERSONS[windows.group])
    persons_of = ("--persons", *whose) if whose else ()
    return command(*words, *rows, *persons_of, "--seed", seed, "--out", out / "data" / windows.file)


def benchmark_windows(settings: FilmSettings) -> Windows:
    """Those of the table. Two thirds of a row are shown, as everywhere in recommendation."""
    return Windows(BENCHMARK, "test", settings.test_windows, LONGER)


def _blank(settings: FilmSettings) -> Command:
    words = ("python", "-m", "alignxplore.films.model", "--out", settings.out / "models/blank")
    return command(*words, "--data", settings.out / "data/policy.jsonl", "--seed", settings.seed)


def _lesson(settings: FilmSettings, kind: str, group: str, model: str, seed: int = 0, *more: object) -> Command:
    """Lessons of a reader or a judge on the windows of a group of persons. The second judge has its own persons and
    words and is never used as reward."""
    data, models = settings.out / "data", settings.out / "models"
    words = ("python", "-m", "alignxplore.films.lessons", kind, "--base", models / "blank")
    rows = ("--data", data / f"{group}.jsonl", "--out", models / model)
    return command(*words, *rows, "--seed", settings.seed + seed, *more)


def _teacher(settings: FilmSettings) -> Server:
    words = ("python", "-m", "alignxplore.films.teacher", "--port", 0)
    return Server("teacher", command(*words, "--names_of", settings.out / "models/blank"))


def _synthesis(settings: FilmSettings, teacher: Server, judge: Server) -> Command:
    """Every choice can be a target: a signal model of this size is sure of none (`studies/films_signal.sh`)."""
    out, models = settings.out, settings.out / "models"
    words = ("python", "sft/synthesize.py", "--data", out / "data/synthesis.jsonl", "--out", out / "synthesis")
    servers = (
        "--teacher",
        f"teacher={teacher.url}#{models / 'blank'}",
        "--judge",
        f"judge={judge.url}#{models / 'judge'}",
    )
    sizes = ("--max_tokens", 256, "--requests", 16, "--max_error_rate", 0, "--seed", settings.seed)
    return command(*words, *servers, *sizes)


def _rl_rows(rows: Path) -> Command:
    windows = rows.with_name(f"{rows.stem}_windows.jsonl")
    words = ("python", "-m", "alignxplore.films.rows", "--data", windows, "--out", rows)
    return command(*words, "--length", LONGER)


def count_statements(settings: FilmSettings, out: Path) -> Command:
    """What the summaries in `out` state, against the true tally."""
    words = ("python", "-m", "alignxplore.films.statements", "--data", out / "data" / BENCHMARK)
    whose = ("--summaries", out / "eval", "--policies", "sft", "sft+rl", "--tokenizer", settings.out / "models/blank")
    return command(*words, *whose, "--out", out / "statements.json")


def _figures(settings: FilmSettings) -> list[Command]:
    """Plots; what the summaries state, against the true tally; one person, found by a rule."""
    out, results, data = settings.out, settings.out / "eval/results.json", settings.out / "data" / BENCHMARK
    curves = ("--run", out / "rl/metrics.jsonl", "--out", out / "figures/rl_curves.png")
    return [
        command("python", "figures/plots.py", "--results", results, "--out", out / "figures"),
        command("python", "figures/rl_curves.py", *curves),
        count_statements(settings, out),
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
