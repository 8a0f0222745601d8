"""Options that cannot be meant are refused at once, before a server is started or a file is read."""

import pytest

from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.cross_task import CrossTaskOptions
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.perturbations import PerturbOptions

NEEDED = {"model": ["m"], "judge": ["j"], "data": ["d"], "out": "o"}


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *((GenerationArguments, option) for option in ("limit", "concurrency", "stages", "max_tokens")),
        *((EvaluationArguments, option) for option in ("limit", "concurrency", "answer_tokens")),
        (PerturbOptions, "limit"),
        (CrossTaskOptions, "limit"),
    ],
)
@pytest.mark.parametrize("value", [0, -3])
def test_numbers_below_one(kind, option, value):
    values = {name: NEEDED[name] for name in kind.__dataclass_fields__ if name in NEEDED}
    kind(**values | {option: 1})
    with pytest.raises(ValueError, match=f"--{option} {value}: at least 1"):
        kind(**values | {option: value})


async def test_a_window_without_room_for_a_prompt(record, benchmark_file, tmp_path, monkeypatch):
    monkeypatch.setattr("alignxplore.evaluation.generation.open_model", None)  # not to be reached
    (tmp_path / "model").mkdir()
    data = str(benchmark_file("world_films", [record("u")]))
    with pytest.raises(
        ValueError, match="a window of 4096 tokens leaves no room for a prompt beside an answer of 4096"
    ):
        await generate(
            GenerationArguments(
                model=[f"m={tmp_path / 'model'}"], data=[data], out=str(tmp_path / "out"), max_model_len=4096
            )
        )
