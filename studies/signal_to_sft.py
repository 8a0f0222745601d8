"""From raw behaviour to a trained policy and to RL rows, in the simulated world: everything that comes before SFT. The
steps of `studies/signal_to_sft.sh`, which says what they do.

    python studies/signal_to_sft.py --check
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import run
from alignxplore.environment import ROOT
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.settings import Number, setting, taken
from alignxplore.quickstart.stages import World, rl_parquet
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Command, Server, Step, command
from alignxplore.quickstart.study import StudyOptions, StudySettings, of_the_base

# The signal model halfway through its training: which checkpoints there are shows only then.
HALFWAY = """mapfile -t found < <(ls -dv "$1"/checkpoint-*)
shift
exec python sft/signal_model.py score "$@" --model "${found[(${#found[@]} - 1) / 2]}"
"""


@dataclass(frozen=True, kw_only=True)
class SignalSettings(StudySettings):
    """Sizes, and what is chosen otherwise than at full size."""

    out: Path = setting("folder of the study", ROOT / "runs/studies/signal_to_sft", decides=False)
    seed: str = taken()
    users: int = setting("whose behaviour it begins with", 1200)
    limit: int = setting("benchmark users", 600)
    signal: str = setting("a tiny model is hardly surer; published: 0.9", "0.5")
    epochs: int = setting("of SFT", 6)
    rl_steps: int = setting("RL updates", 2)
    rl_lr: str = setting("their learning rate", Number("3e-4"))


def steps(settings: SignalSettings) -> list[Step]:
    """Signal model, synthesis, SFT, selection of RL rows, RL, evaluation."""
    base, out = settings.base, settings.out
    world = World(folder=base, seed=int(settings.seed), rl_steps=settings.rl_steps, rl_lr=settings.rl_lr)
    judge, limit = world.judge(out), ("--limit", settings.limit)
    oracle = Server("oracle", command("python", "-m", "alignxplore.world.oracle", "--port", 0))
    users = ("--out", out / "users.jsonl", "--users", settings.users, "--seed", settings.seed)
    policies = {"untrained": base / "models/base", "sft": base / "models/sft", "synthesised": out / "sft"}
    rows, epochs = out / "synthesis/sft.jsonl", ("--num_train_epochs", settings.epochs)
    synthesis = world.synthesise(out / "users.jsonl", out / "synthesis", settings.signal, oracle)
    return [
        Step("users", 3, [command("python", "-m", "alignxplore.world.long_users", *users)]),
        Step("synthesis", 500, [synthesis], [oracle]),
        Step("sft", 120, [world.train_sft(base / "models/base", rows, out / "sft", *epochs)]),
        Step("weak", 50, [_weak(out)]),
        Step("selection", 8, _selection(settings)),
        Step("rl", 150, [world.train_rl(judge, out / "sft", out / "rl_train.parquet", out / "rl")], [judge]),
        Step("summaries", 230, [world.write_summaries(out / "eval", policies, *limit)]),
        Step("scores", 180, [world.score_summaries(out / "eval", list(policies), *limit)]),
        Step("results", 1, [command("cp", out / "eval/results.json", out / "eval/report.md", out)]),
    ]


def _weak(out: Path) -> Command:
    checkpoints, scores = out / "synthesis/signal_model", out / "weak_scores"
    return command("bash", "-c", HALFWAY, "halfway", checkpoints, "--data", out / "users.jsonl", "--output", scores)


def _selection(settings: SignalSettings) -> list[Command]:
    """RL rows by signal, and whether they overlap with the benchmark."""
    out, rows = settings.out, settings.out / "rl_train.jsonl"
    strong, weak = out / "synthesis/signal_scores/scores.jsonl", out / "weak_scores/scores.jsonl"
    arguments = ("--data", out / "users.jsonl", "--strong", strong, "--weak", weak, "--output", rows)
    benchmarks = [settings.base / f"data/test_{domain}_upi.jsonl" for domain in ("films", "news")]
    trained_on = ("--train", rows, out / "synthesis/sft.jsonl")
    return [
        command("python", "sft/select_rl.py", *arguments, "--signal_share", 0.5, "--least_strong", 0.3),
        command("python", "sft/overlap.py", *trained_on, "--benchmarks", *benchmarks),
        *rl_parquet(rows),
    ]


def study(options: StudyOptions) -> str:
    """Run the study, or say what it would do."""
    settings = SignalSettings.read(**of_the_base("seed"))
    results = {"results": "results.json", "funnel": "synthesis/funnel.png"}
    return carry_out(Pipeline.of(settings, steps(settings), **results), options.check)


if __name__ == "__main__":
    run(study, StudyOptions, f"{__doc__}\n{SignalSettings.told()}")
