"""What the user of a script can mend is said in one sentence; what only we can mend keeps its traceback."""

import pytest

from alignxplore.errors import one_sentence
from alignxplore.models import ModelSpec
from alignxplore.prompts import PromptSet
from alignxplore.records import read_users


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda: list(read_users("mind.jsonl")), "mind.jsonl: no such file"),
        (lambda: ModelSpec.parse("t=127.0.0.1:8000/v1"), "'127.0.0.1:8000/v1' has no scheme; write http://127.0.0.1:8000/v1"),
        (lambda: PromptSet("nowhere"), "nowhere"),
        (lambda: ModelSpec.parse("t=./nowhere"), "no such model folder"),
    ],
)
def test_what_says_itself_what_is_wrong_is_shown_without_a_traceback(fault, sentence):
    with pytest.raises(SystemExit, match=sentence), one_sentence():
        fault()


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError), one_sentence():
        {}["absent"]
