"""Every kind of downstream model is asked in one way; none has a method that only refuses."""

import ast

import pytest

from alignxplore.judging.downstream import Downstream
from alignxplore.judging.free_form import ReasoningJudge
from alignxplore.judging.letters import Judge
from alignxplore.judging.yes_no import YesNoJudge
from alignxplore.prompts import PromptSet
from tests import ROOT

KINDS = (Judge, ReasoningJudge, YesNoJudge)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_all_that_evaluation_asks(kind):
    assert issubclass(kind, Downstream) and not kind.__abstractmethods__
    assert [name for name in Downstream.__annotations__ if not hasattr(kind, name)] == []


def test_only_who_reads_letters_has_something_for_it(tokenizer):
    """A model whose answers are written is asked for no probability: its tokenizer need not know any letter."""
    by_letter, by_word = (set(dir(kind(None, tokenizer, PromptSet()))) for kind in (Judge, YesNoJudge))
    writer = set(dir(ReasoningJudge(None, None, PromptSet(), "think")))
    assert by_letter - writer == {"reader"} and writer <= by_letter and "reader" in by_word


def test_a_yes_no_reader_cannot_be_asked_about_a_summary():
    assert not hasattr(YesNoJudge, "score") and not YesNoJudge.reads_summaries


def test_nobody_looks_which_kind_it_is():
    names = {kind.__name__ for kind in KINDS}
    places = []
    for path in (ROOT / "alignxplore").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                if names & {getattr(part, "id", "") for part in ast.walk(node.args[1])}:
                    places.append(f"{path.name}:{node.lineno}")
    assert places == []
