"""Every kind of downstream model is asked in one way; none has a method that only refuses."""

import ast

import pytest

from alignxplore.judging.downstream import Downstream
from alignxplore.judging.free_form import ReasoningJudge
from alignxplore.judging.letters import Judge
from alignxplore.judging.yes_no import YesNoJudge
from tests import ROOT

KINDS = (Judge, ReasoningJudge, YesNoJudge)
MADE = {"endpoint", "tokenizer", "prompts", "seed", "answer_tokens"}  # when one is made


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_all_that_evaluation_asks(kind):
    names = {name for base in Downstream.__mro__ for name in getattr(base, "__annotations__", {})}
    names |= {name for base in Downstream.__mro__ for name in vars(base) if not name.startswith("_")}
    form = {"form"} if kind is ReasoningJudge else set()
    assert [name for name in sorted(names - MADE - form) if not hasattr(kind, name)] == []


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
