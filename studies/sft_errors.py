"""How much of what is wrong in the SFT rows can RL mend? SFT rows of the simulated world with other shares of errors,
and controls. The steps of `studies/sft_errors.sh`, which says what they do.

    python studies/sft_errors.py --check
"""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import items, run
from alignxplore.environment import ROOT
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.settings import SettingError, setting, taken
from alignxplore.quickstart.stages import World, rl_parquet
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Step, command
from alignxplore.quickstart.study import StudyOptions, StudySettings, of_the_base

FAULTS = {"clean": ("0", "0"), "less": ("0.15", "0.10"), "more": ("0.40", "0.10")}  # shares of errors and of gaps
VARIANTS = (*FAULTS, "longer", "shuffled")


@dataclass(frozen=True, kw_only=True)
class ErrorsSettings(StudySettings):
    """What is compared with the base's own models is made as they were."""

    out: Path = setting("folder of the study", ROOT / "runs/studies/sft_errors", decides=False)
    variants: str = setting("which to train", " ".join(VARIANTS), decides=False)
    seed: str = taken()
    rl_steps: str = taken()
    rl_lr: str = taken()


class Study:
    """The steps of each variant, and the models that they leave."""

    def __init__(self, settings: ErrorsSettings):
        self.base, self.out, self.seed = settings.base, settings.out, settings.seed
        self.world = World(
            folder=self.base, seed=int(settings.seed), rl_steps=int(settings.rl_steps), rl_lr=settings.rl_lr
        )
        self.policies = {"sft": self.base / "models/sft", "sft+rl": self.base / "rl/model"}

    def steps(self, variants: list[str]) -> list[Step]:
        """All that the variants need, then one evaluation of all models."""
        training = [step for variant in variants for step in self._training(variant)]
        out, results = self.out / "eval", self.out / "results.json"
        draw = ("python", "studies/plot_sft_errors.py", "--results", results, "--out", self.out / "errors.png")
        return [
            *training,
            Step("summaries", 600, [self.world.write_summaries(out, self.policies)]),
            Step("scores", 600, [self.world.score_summaries(out, list(self.policies))]),
            Step("figure", 5, [command("cp", out / "results.json", out / "report.md", self.out), command(*draw)]),
        ]

    def _training(self, variant: str) -> list[Step]:
        if variant in FAULTS:
            return self._with_faults(variant)
        if variant == "longer":
            return [self._longer()]
        if variant == "shuffled":
            return self._shuffled()
        raise SettingError(f"unknown variant '{variant}'; known: {' '.join(VARIANTS)}")

    def _with_faults(self, variant: str) -> list[Step]:
        """SFT rows of the same users with other faults, SFT, RL."""
        folder = self.out / variant
        errors, gaps = FAULTS[variant]
        words = ("python", "-m", "alignxplore.world", "--out", folder / "data", "--seed", self.seed)
        shares = ("--error-rate", errors, "--gap-rate", gaps)
        nothing_else = ("--train-users", 1, "--val-users", 1, "--test-users", 1, "--judge-rows", 1, "--reader-rows", 1)
        training = self.world.train_sft(self.base / "models/base", folder / "data/sft.jsonl", folder / "sft")
        self.policies[f"sft.{variant}"] = folder / "sft"
        return [
            Step(f"{variant}.rows", 10, [command(*words, *shares, *nothing_else)]),
            Step(f"{variant}.sft", 110, [training]),
            self._rl(variant, folder / "sft", self.base / "data/rl_train.parquet"),
        ]

    def _longer(self) -> Step:
        """More SFT on the same rows, for about as long as SFT and RL take."""
        rows, out = self.base / "data/sft.jsonl", self.out / "longer/sft"
        self.policies["sft.longer"] = out
        training = self.world.train_sft(self.base / "models/base", rows, out, "--num_train_epochs", 5)
        return Step("longer.sft", 420, [training])

    def _shuffled(self) -> list[Step]:
        """RL whose reward knows nothing."""
        rows = self.out / "shuffled/rl_train.jsonl"
        words = ("python", "studies/shuffle_targets.py", "--data", self.base / "data/rl_train.jsonl", "--out", rows)
        return [
            Step("shuffled.rows", 2, [command(*words), *rl_parquet(rows)]),
            self._rl("shuffled", self.base / "models/sft", rows.with_suffix(".parquet")),
        ]

    def _rl(self, variant: str, model: Path, rows: Path) -> Step:
        judge, out = self.world.judge(self.out), self.out / variant / "rl"
        self.policies[f"sft+rl.{variant}"] = out / "model"
        return Step(f"{variant}.rl", 350, [self.world.train_rl(judge, model, rows, out)], [judge])


def study(options: StudyOptions) -> str:
    """Run the study, or say what it would do."""
    settings = ErrorsSettings.read(**of_the_base("seed", "rl_steps", "rl_lr"))
    steps = Study(settings).steps(items(settings.variants))
    return carry_out(Pipeline.of(settings, steps, results="results.json", figure="errors.png"), options.check)


if __name__ == "__main__":
    run(study, StudyOptions, f"{__doc__}\n{ErrorsSettings.told()}")
