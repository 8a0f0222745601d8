"""What a finished quick start offers: its policies, its judges and its test persons."""

import json
from dataclasses import dataclass
from pathlib import Path

from alignxplore.datasets import name_of
from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.serving.endpoint import is_url
from alignxplore.serving.models import ModelSpec

RUN = ROOT / "runs/quickstart"
WINDOW = 16384  # tokens of prompt and answer at most (paper)
_POLICIES = {"sft": "models/sft", "sft+rl": "rl/model"}
_JUDGES = ("judge", "judge2")


@dataclass(frozen=True)
class Finished:
    """The models of a run's folder as NAME=FOLDER, in the order of their training, and its test file."""

    policies: tuple[str, ...]
    judges: tuple[str, ...]
    benchmark: Path

    @property
    def of_films(self) -> bool:
        """Whether its models know films by genres and decade alone, and nothing of a bare title."""
        return name_of(self.benchmark) == "movielens"

    @classmethod
    def read(cls, run: Path) -> "Finished":
        """Raises UserError where the run is not there, or not as far."""
        policies = [f"{name}={run / place}" for name, place in _POLICIES.items() if _is_model(run / place)]
        judges = [f"{name}={run / 'models' / name}" for name in _JUDGES if _is_model(run / "models" / name)]
        files = sorted((run / "data").glob("*_upi.jsonl"))
        if not policies or not judges or not files:
            gap = "models" if files else "test persons"
            problem = f"no finished quick start ({gap} are missing): run ./quickstart.sh first, or name --model"
            raise UserError(f"{run}: {problem}")
        return cls(tuple(policies), tuple(judges), files[0])


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def window_of(spec: ModelSpec, limit: int = WINDOW) -> int:
    """Tokens that a model takes, as far as its folder tells; an endpoint says so itself."""
    config = Path(spec.target) / "config.json"
    if is_url(spec.target) or not config.is_file():
        return limit
    return min(limit, int(json.loads(config.read_text()).get("max_position_embeddings") or limit))


def answer_tokens(window: int) -> int:
    """Tokens of an answer at most: the paper's 4,096, or a quarter of a smaller window."""
    return min(4096, window // 4)
