"""What a finished quick start offers: its policies, its judges and its test persons."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.films.model import READ_AS
from alignxplore.records import read_object
from alignxplore.serving.endpoint import is_url
from alignxplore.serving.models import ModelSpec

RUN = ROOT / "runs/quickstart"
WINDOW = 16384  # tokens of prompt and answer at most (paper)
_POLICIES = {"sft": "models/sft", "sft+rl": "rl/model"}
TITLE = READ_AS[0][0]  # what the tokenizer of the quick start's models leaves out
_JUDGES = ("judge", "judge2")


@dataclass(frozen=True)
class Finished:
    """The models of a run's folder as NAME=FOLDER, in the order of their training, and its test file."""

    policies: tuple[str, ...]
    judges: tuple[str, ...]
    benchmark: Path
    folder: Path

    def holds(self, spec: ModelSpec) -> bool:
        """Whether a model lies in the run's folder."""
        return Path(os.path.abspath(spec.target)).is_relative_to(os.path.abspath(self.folder))

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
        return cls(tuple(policies), tuple(judges), files[0], run)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def reads_genres(spec: ModelSpec) -> bool:
    """Whether it is a model of the quick start, which knows films by genres and decade alone, and nothing of a bare
    title. Its tokenizer tells, wherever the folder lies; of an endpoint only the tokenizer that is named with it."""
    path = Path(spec.tokenizer or spec.target, "tokenizer.json")
    return path.is_file() and json.dumps(TITLE) in path.read_text(encoding="utf-8", errors="replace")


def window_of(spec: ModelSpec, limit: int = WINDOW) -> int:
    """Tokens that a model takes, as far as its folder tells; an endpoint says so itself.

    Raises:
        RecordError: its config.json is damaged.
    """
    config = Path(spec.target) / "config.json"
    if is_url(spec.target) or not config.is_file():
        return limit
    positions = read_object(config, remedy="put the model's own file there").get("max_position_embeddings")
    return min(limit, positions) if isinstance(positions, int) and positions > 0 else limit


def answer_tokens(window: int) -> int:
    """Tokens of an answer at most: the paper's 4,096, or a quarter of a smaller window."""
    return min(4096, window // 4)
