"""The quick start in the simulated world: users whose likes are known, a policy and two judges of a million parameters
each, SFT, streaming GRPO, evaluation. For questions whose answer must be known."""

from dataclasses import dataclass

from alignxplore.command import items
from alignxplore.quickstart.settings import Number, Settings, setting
from alignxplore.quickstart.stages import World, rl_parquet
from alignxplore.quickstart.steps import Command, Step, command


@dataclass(frozen=True, kw_only=True)
class WorldSettings(Settings):
    """All defaults fit two cores and 12 GB."""

    seed: int = setting("seed of the world, the models and all draws", 1, least=0)
    test_users: int = setting("users of the test benchmark: what the intervals of the table need", 600)
    train_users: int = setting("users whose histories RL trains on", 2000)
    val_users: int = setting("held-out users during RL", 64)
    sft_users: int = setting("users behind the SFT rows", 1500)
    judge_rows: int = setting("rows each judge learns from", 12000)
    reader_rows: int = setting("rows from which the untrained policy learns to read, as Qwen3 has before SFT", 4000)
    rl_steps: int = setting("RL updates", 40)
    rl_lr: str = setting("their learning rate", Number("3e-4"))
    sft_options: str = setting("more options of sft/sft.py", "")


def steps(settings: WorldSettings) -> list[Step]:
    """From nothing to the table."""
    out, data, models = settings.out, settings.out / "data", settings.out / "models"
    world = World(folder=out, seed=settings.seed, rl_steps=settings.rl_steps, rl_lr=settings.rl_lr)
    judge = world.judge(out)
    policies = {"untrained": models / "base", "sft": models / "sft", "sft+rl": out / "rl/model"}
    more = items(settings.sft_options)
    return [
        Step("world", 15, [_make_world(settings)]),
        Step("blank", 10, [_blank(settings)]),
        Step("lessons", 170, [_lessons(settings)]),
        Step("sft", 80, [world.train_sft(models / "base", data / "sft.jsonl", models / "sft", *more)]),
        Step("rl_data", 4, rl_parquet(data / "rl_train.jsonl", data / "rl_val.jsonl")),
        Step(
            "rl",
            85 + 6 * settings.rl_steps,
            [world.train_rl(judge, models / "sft", data / "rl_train.parquet", out / "rl")],
            [judge],
        ),
        Step("summaries", 140, [world.write_summaries(out / "eval", policies)]),
        Step("scores", 75, [world.score_summaries(out / "eval", list(policies))]),
        Step("figures", 6, _figures(settings)),
    ]


def _make_world(settings: WorldSettings) -> Command:
    users = ("--train-users", settings.train_users, "--val-users", settings.val_users)
    more = ("--test-users", settings.test_users, "--sft-users", settings.sft_users)
    rows = ("--judge-rows", settings.judge_rows, "--reader-rows", settings.reader_rows)
    words = ("python", "-m", "alignxplore.world", "--out", settings.out / "data", "--seed", settings.seed)
    return command(*words, *users, *more, *rows)


def _blank(settings: WorldSettings) -> Command:
    words = ("python", "-m", "alignxplore.world.tiny", "--out", settings.out / "models/blank")
    return command(*words, "--seed", settings.seed)


def _lessons(settings: WorldSettings) -> list[Command]:
    """All at once; the second judge has its own seed and data and is never used as reward."""
    models, seed = settings.out / "models", settings.seed

    def lesson(rows: str, model: str, seed: int) -> Command:
        words = ("python", "-m", "alignxplore.world.lessons", "--base", models / "blank")
        where = ("--data", settings.out / f"data/{rows}.jsonl", "--out", models / model)
        return command(*words, *where, "--seed", seed)

    return [lesson("judge", "judge", seed + 10), lesson("judge2", "judge2", seed + 20), lesson("reader", "base", seed)]


def _figures(settings: WorldSettings) -> list[Command]:
    out, results = settings.out, settings.out / "eval/results.json"
    curves = ("--run", out / "rl/metrics.jsonl", "--out", out / "figures/rl_curves.png")
    return [
        command("python", "figures/plots.py", "--results", results, "--out", out / "figures"),
        command("python", "figures/rl_curves.py", *curves),
        command("cp", results, out / "eval/report.md", out / "eval/report.html", out),
    ]
