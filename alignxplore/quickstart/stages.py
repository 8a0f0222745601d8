"""How tiny policies are trained and scored: the commands that the quick starts and the studies share."""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.quickstart.steps import Command, Server, command, model_server


@dataclass(frozen=True, kw_only=True)
class Stages:
    """A folder with data/ and models/, and how policies are trained upon it.

    Attributes:
        benchmark: NAME=FILE of the test.
        scoring: more options of its scores.
        seed: of SFT and RL.
        rl_steps: updates of RL.
        rl_lr: their learning rate.
        max_tokens: longest answer in evaluation.
    """

    folder: Path
    benchmark: str
    scoring: tuple[object, ...]
    seed: int
    rl_steps: int
    rl_lr: str
    max_tokens: int = 128

    def train_sft(self, model: Path, rows: Path, out: Path, *options: object) -> Command:
        """SFT of `model` on `rows`, with the settings of the tiny models."""
        words = ("bash", "sft/sft.sh", "--config", "sft/configs/tiny.yaml", "--model_name_or_path", model)
        where = ("--train_data", rows, "--output_dir", out, "--seed", self.seed)
        return command(*words, *where, *options, OMP_NUM_THREADS=2)

    def synthesise(self, users: Path, out: Path, signal: str, teacher: Server) -> Command:
        """Signal model, its scores, then teacher and judge, by the same script as at full size; the step needs
        `teacher`."""
        models = self.folder / "models"
        words = ("bash", "sft/synthesize.sh", "--signal", signal, "--max_tokens", 256)
        judging = ("--judge_arguments", "--max-model-len 2048", "--requests", 64, "--max_error_rate", 0)
        return command(
            *words,
            *judging,
            DATA=users,
            OUT=out,
            SIGNAL_MODEL=models / "base",
            SIGNAL_CONFIG="sft/configs/signal_tiny.yaml",
            NPROC=1,
            TEACHER=f"teacher={teacher.url}#{models / 'base'}",
            JUDGE=f"judge={models / 'judge'}",
        )

    def judge(self, out: Path, name: str = "judge") -> Server:
        """The server of a judge, by default the one that gives rewards; what it says goes to the logs of `out`."""
        return model_server(out, name, self.folder / "models" / name)

    def train_rl(
        self, judge: Server, model: Path, rows: Path, out: Path, *options: object, **variables: object
    ) -> Command:
        """Streaming GRPO of `model` on `rows`; `options` are verl's own. The step needs `judge`."""
        chosen = {
            "PRESET": "tiny",
            "MODEL": model,
            "TRAIN": rows,
            "VAL": self.folder / "data/rl_val.parquet",
            "JUDGES": f"{judge.name}={judge.url}",
            "JUDGE_TOKENIZER": self.folder / f"models/{judge.name}",
            "OUT": out,
            "STEPS": self.rl_steps,
            "LR": self.rl_lr,
            "SEED": self.seed,
        }
        return command("bash", "verl/examples/grpo_trainer/run_streaming_8p.sh", *options, **chosen | variables)

    def write_summaries(self, out: Path, policies: dict[str, Path], *options: object) -> Command:
        """Summaries of the test users by each policy (name → model), from the full history and as a stream."""
        models = [f"{name}={model}" for name, model in policies.items()]
        sizes = ("--max_tokens", self.max_tokens, "--max_model_len", 2048, "--concurrency", 128, "--max_error_rate", 0)
        words = ("python", "eval/gen_preference.py", "--out", out, "--data", self.benchmark)
        return command(*words, *sizes, "--model", *models, *options)

    def score_summaries(self, out: Path, policies: list[str], *options: object) -> Command:
        """Their judgements by both judges, tables and reports."""
        judges = [f"{name}={self.folder / 'models' / name}" for name in ("judge", "judge2")]
        sizes = ("--max_model_len", 2048, "--concurrency", 128, "--max_error_rate", 0)
        words = ("python", "eval/evaluate.py", "--out", out, "--data", self.benchmark)
        return command(*words, *self.scoring, *sizes, "--judge", *judges, "--policies", *policies, *options)


class World(Stages):
    """Stages in the simulated world, where the best possible accuracy is known."""

    def __init__(self, *, folder: Path, seed: int, rl_steps: int, rl_lr: str):
        super().__init__(
            folder=folder,
            benchmark=f"world_films={folder / 'data/test_films_upi.jsonl'}",
            scoring=("--bounds", folder / "data/world.json", "--cues", "random"),
            seed=seed,
            rl_steps=rl_steps,
            rl_lr=rl_lr,
        )


def rl_parquet(*files: Path) -> list[Command]:
    """FILE.jsonl → FILE.parquet, as RL reads it."""
    script = "verl/examples/data_preprocess/upi_streaming_dataset.py"
    return [command("python", script, "--data", file, "--out", file.with_suffix(".parquet")) for file in files]
