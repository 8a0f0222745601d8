"""Who should answer for the next stage? RL in the simulated world with credit paper and centered, at equal generated
tokens. The steps of `studies/credit.sh`, which says what they do.

    python studies/credit.py --check
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import items, run
from alignxplore.environment import ROOT
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.settings import Number, SettingError, setting
from alignxplore.quickstart.stages import World
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Step, command
from alignxplore.quickstart.study import StudyOptions, StudySettings, of_the_base

CREDITS = ("paper", "centered")


@dataclass(frozen=True, kw_only=True)
class CreditSettings(StudySettings):
    """Which runs, and how long."""

    out: Path = setting("folder of the study", ROOT / "runs/studies/credit", decides=False)
    credits: str = setting("which to train with", " ".join(CREDITS), decides=False)
    seeds: str = setting("seeds of each", "1 2 3", decides=False)
    rl_steps: int = setting("updates of each run", 40)
    rl_lr: str = setting("their learning rate", Number("3e-4"))
    users: str = setting("of the test benchmark (default: all)", "")


def steps(settings: CreditSettings) -> list[Step]:
    """A run for each credit and seed, then one evaluation of all of them as a stream."""
    base, out = settings.base, settings.out
    credits, seeds = items(settings.credits), items(settings.seeds)
    if unknown := [credit for credit in credits if credit not in CREDITS]:
        raise SettingError(f"unknown credit '{unknown[0]}'; known: {' '.join(CREDITS)}")
    runs = [f"{credit}.{seed}" for credit in credits for seed in seeds]
    policies = {"sft": base / "models/sft"} | {name: out / name / "model" for name in runs}
    limit = ["--limit", settings.users] if settings.users else []
    world = World(folder=base, seed=0, rl_steps=settings.rl_steps, rl_lr=settings.rl_lr)
    figure = command("python", "studies/plot_credit.py", "--study", out, "--runs", *runs)
    return [
        # Seed by seed, so that an early look compares all credits.
        *(_train(settings, world, credit, seed) for seed in seeds for credit in credits),
        Step(
            "summaries",
            60 * len(policies),
            [world.write_summaries(out / "eval", policies, "--settings", "streaming", *limit)],
        ),
        Step(
            "scores", 30 * len(policies), [world.score_summaries(out / "eval", list(policies), "--no_direct", *limit)]
        ),
        Step("figure", 5, [figure]),
    ]


def _train(settings: CreditSettings, world: World, credit: str, seed: str) -> Step:
    judge = world.judge(settings.out)
    variables = {"CREDIT": credit, "SEED": seed, "BATCH": 16, "MINI_BATCH": 16, "TEST_EVERY": 10}
    rows, name = settings.base / "data/rl_train.parquet", f"{credit}.{seed}"
    training = world.train_rl(judge, settings.base / "models/sft", rows, settings.out / name, **variables)
    return Step(name, 90 + 9 * settings.rl_steps, [training], [judge])


def study(options: StudyOptions) -> str:
    """Run the study, or say what it would do."""
    of_the_base()
    settings = CreditSettings.read()
    return carry_out(Pipeline.of(settings, steps(settings), report="report.md", figure="credit.png"), options.check)


if __name__ == "__main__":
    run(study, StudyOptions, f"{__doc__}\n{CreditSettings.told()}")
