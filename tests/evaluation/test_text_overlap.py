"""BLEU and ROUGE-L of an answer, worked by hand, and as the libraries count them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu

from alignxplore.evaluation.text_overlap import bleu, rouge_l


def test_overlap_with_the_reference():
    reference = "the cat is on the mat"
    assert bleu(reference, reference) == pytest.approx(1) and rouge_l(reference, reference) == 1
    assert rouge_l("猫 は 好き", "猫 は 嫌い") == pytest.approx(2 / 3)  # no script scores 0
    assert bleu("", reference) == rouge_l("", reference) == bleu("dog", reference) == rouge_l("dog", reference) == 0
    # Lin 2004: "police killed the gunman" / "police kill the gunman": the subsequence has 3 of 4 words on both sides.
    assert rouge_l("police kill the gunman", "Police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)
    # 5/6 words, then (3+1)/(5+1), (2+1)/(4+1), (1+1)/(3+1) with one more of each; no brevity penalty at equal length.
    assert bleu("the cat sat on the mat", reference) == pytest.approx((5 / 6 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    assert bleu("the cat is", reference) == pytest.approx((1 * 1 * 1 * 1) ** 0.25 * 2.718281828 ** (1 - 6 / 3))


sentences = st.lists(st.sampled_from("The cat Sat sat on the mat again , . ?".split()), max_size=12).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(answer=sentences, reference=sentences)
def test_overlap_is_that_of_sacrebleu_and_rouge_score(answer, reference):
    of_bleu = sentence_bleu(answer, [reference], lowercase=True, smooth_method="add-k", smooth_value=1)
    assert bleu(answer, reference) == pytest.approx(of_bleu.score / 100)
    # The library's own tokenizer drops punctuation: it is asked about texts without.
    answer, reference = (re.sub(r"[^\w ]", "", text) for text in (answer, reference))
    of_rouge = RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
    assert rouge_l(answer, reference) == pytest.approx(of_rouge)


def test_case_is_no_difference_and_a_mark_is_a_word():
    assert bleu("The Mat.", "the mat .") == pytest.approx(1) and rouge_l("The Mat.", "the mat .") == 1
    assert rouge_l("mat!", "mat?") == pytest.approx(0.5) and bleu("mat!", "mat?") < 1
