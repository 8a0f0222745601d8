"""The arithmetic of docs/scale.md: the page holds what the code says, and the code is a count by hand."""

import pytest

from alignxplore.errors import UserError
from alignxplore.guide.scale import ScaleOptions, jobs, page, scale, seconds_each
from tests import ROOT


def test_the_page_holds_what_the_code_says():
    assert page(ScaleOptions()) in (ROOT / "docs/scale.md").read_text(), "python -m alignxplore.guide.scale"


def test_an_answer_by_hand():
    """Qwen3-8B: 8.19e9 weights in bf16, 36 layers of 8 heads of 128, keys and values; on an H100."""
    weights, token, prompt, answer = 2 * 8.19e9, 2 * 36 * 8 * 128 * 2, 2700, 1500
    at_once = (0.9 * 80e9 - weights) // ((prompt + answer) * token)
    step = (weights + at_once * (prompt + answer / 2) * token) / (0.6 * 3.35e12) + 0.003
    seconds = (step * answer / at_once + prompt * weights / (0.4 * 989e12)) / 0.85
    assert seconds_each(ScaleOptions(), prompt) == pytest.approx(seconds, rel=0.01)


def test_hours_grow_with_the_persons_and_a_stream_reads_less_at_a_time():
    few, many = jobs(ScaleOptions(persons=1000)), jobs(ScaleOptions(persons=10_000))
    hours = [[job.gpu_hours(ScaleOptions()) for job in some] for some in (few, many)]
    assert hours[1] == pytest.approx([10 * one for one in hours[0]])
    assert few[0].prompts == (300 + 60 * 40,) and few[1].prompts == (300 + 30 * 40, 300 + 30 * 40 + 200)
    assert few[2].persons == 100 and few[2].prompts == (300 + 200 + 10 * 40,)


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match="Qwen3-8B and one history do not fit on a A100 of 0.1"):
        scale(ScaleOptions(card="A100", gpu_memory=0.1))
    with pytest.raises(ValueError, match="--card B1: one of A100"):
        ScaleOptions(card="B1")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"writing_share": 0}, "--writing_share 0: a share above 0, up to 1"),
        ({"reading_share": 0}, "--reading_share 0: a share above 0, up to 1"),
        ({"gpu_memory": 2}, "--gpu_memory 2: a share above 0, up to 1"),
        ({"useful": 0}, "--useful 0: a share above 0, up to 1"),
        ({"active": 3}, "--active 3: a share from 0 to 1"),
        ({"price": float("nan")}, "--price nan: 0 or above"),
        ({"decode_overhead": -1}, "--decode_overhead -1: 0 or above"),
        ({"fresh": -1}, "--fresh -1: 0 or above"),
        ({"summary": -5}, "--summary -5: 0 or above"),
        ({"persons": 0}, "--persons 0: at least 1"),
        ({"text_bytes": float("inf")}, "--text_bytes inf: 0 or above"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(values, problem):
    with pytest.raises(ValueError, match=problem):
        ScaleOptions(**values)
