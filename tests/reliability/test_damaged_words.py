"""Fuzzing of what is no file of rows: prompt templates, answers of models, and NAME=TARGET on the command line."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignxplore.command import items
from alignxplore.errors import SAID
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.films.text import read_summary
from alignxplore.judging.sampled import parse_selection
from alignxplore.prompts import FORMATS, SETS, PromptError, PromptSet, parse_answer, parse_merge
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint, is_url
from alignxplore.serving.models import ModelSpec, choose, parse_all
from alignxplore.world.text import summary_statements
from tests.reliability.damage import DERANDOMIZED, damaged_bytes, watched

ITEM = Interaction("a film", "another film", "which?")
TEMPLATES = {path.stem: path.read_bytes() for path in sorted((SETS / "default").glob("*.jinja"))}


@DERANDOMIZED
@given(data=st.data())
@pytest.mark.parametrize("purpose", ["infer", "judge", "direct"])
def test_prompt_templates(purpose, data, tmp_path):
    """A template that is taken renders messages; one that is not is named, with its file."""
    (tmp_path / f"{purpose}.jinja").write_bytes(data.draw(damaged_bytes(TEMPLATES[purpose])))
    prompts = PromptSet(str(tmp_path))
    calls = {
        "infer": lambda: prompts.infer([ITEM], "Likes films."),
        "judge": lambda: prompts.judge("Likes films.", "which?", "a", "b"),
        "direct": lambda: prompts.direct([ITEM], "which?", "a", "b"),
    }[purpose]
    try:
        with watched():
            messages = calls()
    except PromptError as error:
        assert f"{purpose}.jinja" in str(error)
    else:
        assert messages and all(message["role"] and isinstance(message["content"], str) for message in messages)


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<|channel|>", "<|message|>", "analysis", "final", "<|end|>"]
PIECES += ["<joined_reasoning>", "</joined_reasoning>", "<joined_description>", "</joined_description>", "{", "}", '"']
PIECES += [
    '{"selection": "Item A"}',
    '"selection"',
    ": ",
    "Item A",
    "[",
    "]",
    "\n",
    " ",
    "likes",
    "\0",
    "\ud83d",
    "9" * 99,
]
answers = st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@DERANDOMIZED
@given(text=answers)
def test_answers(text):
    with watched():
        for form in FORMATS:
            answer = parse_answer(text, form)
            assert bool(answer.summary) == (answer.problem is None)
        merged = parse_merge(text)
        assert bool(merged.summary) == (merged.problem is None)
        assert parse_selection(text) in (None, "Item A", "Item B")
        assert isinstance(read_summary(text), list) and isinstance(list(summary_statements(text)), list)


@pytest.mark.parametrize(
    "text", ["<think>" * 50_000, "{" * 200_000, '{"a":' * 50_000, "<|channel|>" * 50_000, "[" * 200_000]
)
def test_a_long_repetition_is_read_at_once(text):
    with watched():
        for form in FORMATS:
            parse_answer(text, form)
        parse_merge(text)
        assert parse_selection(text) is None


SPECS = [
    "a",
    "=",
    "/",
    ":",
    "@",
    "#",
    "http://",
    "https://",
    "h:80",
    "/v1",
    ".",
    "~",
    "..",
    " ",
    "",
    "\n",
    "\0",
    "é",
    "?",
    "%",
    "[",
]
specs = st.lists(st.sampled_from(SPECS), max_size=8).map("".join) | st.text(max_size=12)


@DERANDOMIZED
@given(spec=specs, other=specs)
def test_name_and_target(spec, other):
    """Whatever is typed: a model, or one of the errors that are said in a sentence; names never leave their folder."""
    with watched():
        with contextlib.suppress(*SAID):
            is_url(spec)
        with contextlib.suppress(*SAID):
            parsed = ModelSpec.parse(spec)
            assert "/" not in parsed.name and parsed.name not in ("", ".", "..") and "\0" not in parsed.name
        with contextlib.suppress(*SAID):
            assert len(parse_all([spec, other])) == 2
        with contextlib.suppress(*SAID):
            choose("format", [spec, other], ["a"], "think")
        with contextlib.suppress(*SAID):
            Endpoint(spec)
        with contextlib.suppress(*SAID):
            load_benchmarks([spec] if spec.strip() else ["x"])
        assert all(item.strip() for item in items(spec)) or not spec.strip()
