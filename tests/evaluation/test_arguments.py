"""Options that cannot be meant are refused at once, before a server is started or a file is read."""

import math

import pytest

from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.comparisons import selection
from alignxplore.evaluation.cross_task import CrossTaskOptions
from alignxplore.evaluation.faithfulness import FaithfulnessOptions
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.history_baselines import parse_baselines
from alignxplore.evaluation.perturbations import PerturbOptions
from alignxplore.evaluation.report.writing import published_names

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


@pytest.mark.parametrize(
    ("kind", "option", "values", "demand"),
    [
        *(
            (kind, "max_error_rate", (math.nan, 1.5, -1.0), "a share from 0 to 1")
            for kind in (GenerationArguments, EvaluationArguments, FaithfulnessOptions)
        ),
        (GenerationArguments, "temperature", (math.nan, math.inf, -0.1, 2.1), "a temperature from 0 to 2"),
        (GenerationArguments, "top_p", (math.nan, 0.0, -0.1), "a number above 0"),
        (GenerationArguments, "top_p", (1.1,), "a share from 0 to 1"),
        (GenerationArguments, "top_k", (-2, -20), "at least 1, or 0 for all tokens"),
        (GenerationArguments, "gpus", (-1,), "0 or above"),
        (FaithfulnessOptions, "lift", (math.nan, math.inf, 0.0, -0.1), "a number above 0"),
        *(
            (kind, "max_model_len", (0, -1), "at least 1")
            for kind in (GenerationArguments, EvaluationArguments, FaithfulnessOptions)
        ),
    ],
)
def test_numbers_that_cannot_be_meant(kind, option, values, demand):
    needed_values = {name: NEEDED[name] for name in kind.__dataclass_fields__ if name in NEEDED}
    kind(**needed_values)
    for value in values:
        with pytest.raises(ValueError, match=f"--{option} {value}: {demand}"):
            kind(**needed_values | {option: value})


def test_numbers_at_the_ends_are_taken():
    values = {name: NEEDED[name] for name in ("model", "data", "out")}
    GenerationArguments(**values, temperature=0.0, top_p=1.0, top_k=-1, gpus=0, max_error_rate=0.0)
    GenerationArguments(**values, temperature=2.0, top_k=0, max_error_rate=1.0)


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ({"max_model_len": 5}, 32),
        ({"max_model_len": 2048, "judge_format": ["plain", "j=think"]}, 2048),
        ({"max_model_len": 512, "answer_tokens": 600}, 600),
        ({"max_model_len": 32, "judge_format": ["yes_no"]}, 32),
    ],
)
def test_a_window_without_room_for_a_question(values, tokens):
    needed_values = {name: NEEDED[name] for name in ("judge", "data", "out")}
    room = f"a window of {values['max_model_len']} tokens leaves no room for a prompt beside an answer of {tokens}"
    with pytest.raises(ValueError, match=room):
        EvaluationArguments(**needed_values | values)
    EvaluationArguments(**needed_values | values | {"max_model_len": tokens + 1})
    with pytest.raises(ValueError, match="or lower --answer_tokens$"):
        EvaluationArguments(**needed_values | values)
    with pytest.raises(ValueError, match="a window of 5 tokens leaves no room .* is served with$"):
        FaithfulnessOptions(**needed_values, max_model_len=5)


@pytest.mark.parametrize(
    ("option", "parse", "values"),
    [
        ("published", lambda values: published_names(values, {}, {}), ["a=AlignXplore+", "a=qwen3-8b-thinking"]),
        ("first, --second, --where", selection, ["policy=a", "judge=j", "policy=b"]),
        ("baselines", parse_baselines, ["als=one.jsonl", "als=two.jsonl"]),
    ],
)
def test_a_name_has_one_value(option, parse, values):
    parse(values[:1])
    with pytest.raises(ValueError, match=f"^--{option}: [a-z]+ is given twice; give it one value$"):
        parse(values)


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
