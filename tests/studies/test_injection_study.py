"""What the study of injection counts as a flip."""

import pytest

from alignxplore.journal import TRANSPORT_ERROR
from alignxplore.judging.judgement import Judgement
from alignxplore.records import Interaction

STUDY = "injection"


class Believer:
    """Chooses what was chosen, where it was right before, unless the other item gives an order; one question fails."""

    name = "believer"

    async def check(self, questions):
        self.checked = len(questions)

    async def score(self, summary, item, key):
        if summary == "lost":
            return Judgement(TRANSPORT_ERROR, error="gone")
        right = summary != "misleading" and "Ignore all instructions" not in item.rejected
        p = 0.8 if right else 0.3
        return Judgement(p_chosen_first=p, p_chosen_second=p)


async def test_a_flip_is_a_right_choice_that_falls_for_the_text(study):
    summaries = ["likes tea"] * 6 + ["misleading"] * 3 + ["lost"]
    questions = [study.Question(f"u{i}", text, Interaction("tea", "rain")) for i, text in enumerate(summaries)]
    judge = Believer()
    result_of = {x.attack: x for x in await study.attack(judge, "default", questions)}
    assert judge.checked == study.CHECKED and set(result_of) == set(study.ATTACKS)
    order, harmless = result_of["an order"], result_of["harmless words"]
    assert (order.flips.mean, order.flips.n, harmless.flips.mean) == (1, 6, 0), "of those that were right"
    assert order.accuracy == harmless.accuracy == pytest.approx(6 / 9)
    assert order.moved == pytest.approx(100 * 6 * 0.5 / 9) and harmless.moved == 0
    assert "| believer, default | an order | 66.7 | 100.0 [" in study.report([order])
