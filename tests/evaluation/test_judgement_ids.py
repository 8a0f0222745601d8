"""Ids of judgements, as journals on disk have them: another id would ask every question again."""

import pytest

from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.conditions import JudgeRequest
from alignxplore.evaluation.judgements import unit_id
from alignxplore.judging.free_form import ReasoningJudge
from alignxplore.judging.letters import Judge
from alignxplore.judging.yes_no import YesNoJudge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, Offer, UserRecord
from alignxplore.serving.endpoint import Endpoint

HISTORY = (Interaction("a", "b", "q"), Interaction("c"))
PAIR = UserRecord("u", HISTORY, Interaction("d", "e", "q"))
LIST = UserRecord("u", HISTORY, Offer("d", None, "q", (), ("e", "f")))
READS = {
    "summary": JudgeRequest(PAIR, "s"),
    "history": JudgeRequest(PAIR, history=HISTORY),
    "list": JudgeRequest(LIST, "s"),
    "list, history": JudgeRequest(LIST, history=HISTORY),
}
KINDS = {"letters": Judge, "free form": ReasoningJudge, "yes or no": YesNoJudge}
IDS = {
    ("letters", "choice", "summary"): "04e17be85cdd923e",
    ("letters", "choice", "history"): "8c0e80bfa5493adf",
    ("letters", "choice", "list"): "12ab8b25040c90b3",
    ("letters", "paper", "summary"): "53770f27fa7d797f",
    ("letters", "paper", "history"): "9f66fa853a1b7893",
    ("free form", "choice", "summary"): "33e7cf9717152179",
    ("free form", "choice", "list, history"): "47c2275ff794910a",
    ("free form", "paper", "history"): "b9ec3f546f18cefc",
    ("yes or no", "choice", "history"): "ffb82f8a015880c9",
    ("yes or no", "choice", "list, history"): "d81ac1f4acc01b14",
    ("yes or no", "paper", "history"): "56c8685fa0d95cc6",
}


@pytest.mark.parametrize(("kind", "protocol", "reads"), IDS)
def test_each_kind_s_judgements_keep_their_ids(tokenizer, kind, protocol, reads):
    form = ("think",) if kind == "free form" else ()
    judge = KINDS[kind](Endpoint("http://nowhere/v1"), tokenizer, PromptSet(), *form)
    arguments = EvaluationArguments(judge=["j=x"], data=["d"], out="o")
    assert unit_id(judge, "m", protocol, arguments, READS[reads]) == IDS[kind, protocol, reads]
