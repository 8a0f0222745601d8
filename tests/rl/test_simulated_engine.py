"""The engine of seeded delays that benchmarks/rl_async.py trains with: it takes the time that the step model says, and
an answer that is stopped and gone on with is the same one. Time is the test's own: nothing is waited for."""

import asyncio
import math
import selectors
from statistics import median

import numpy as np
import pytest

from alignxplore.prompts import parse_answer
from alignxplore.rl.step_model import Engine
from tests import ROOT

pytest.importorskip("verl")
with pytest.MonkeyPatch.context() as places:
    places.syspath_prepend(ROOT / "benchmarks")  # scripts: they import what lies beside them
    import rl_async
    from simulated_engine import Form, Server, Writing

FORM = Form([1, 2], [3, 4, 5, 6, 7], [8, 9])
PROMPT = list(range(100, 140))


class Clock(selectors.DefaultSelector):
    """Waits by moving the time on."""

    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0.0
        return super().select(0)


def play(work):
    """(what the coroutine returns, seconds that it would have taken)."""
    clock = Clock()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now
    try:
        return loop.run_until_complete(work), clock.now
    finally:
        loop.close()


def engine(slots=8, token=0.0, prompt=0.0):
    return Engine(slots, math.inf, 1.0, token, prompt)


def written(timing, lengths):
    """Seconds in which answers of these lengths to one prompt are written."""
    writing = Writing(timing, FORM, 1, 0)
    writing.form = type("", (), {"answer": lambda self, seed, *_: [0] * lengths[seed]})()

    async def all_of_them():
        return await asyncio.gather(*(writing.write(PROMPT, seed, 99) for seed in range(len(lengths))))

    answers, seconds = play(all_of_them())
    assert [len(ids) for ids, _ in answers] == list(lengths) and all(whole for _, whole in answers)
    return seconds


@pytest.mark.parametrize("timing", [engine(), engine(slots=2), engine(prompt=0.5), engine(token=0.01)])
def test_it_takes_the_time_that_the_step_model_says(timing):
    lengths = [10, 20, 20, 50]
    forecast, _ = timing.write(np.array([[len(PROMPT)]]), np.array([[lengths]]))
    # Reading: blocks that the whole group shares, and what is left of the prompt for each. Tokens in the cache are
    # those of the moment, where the step model takes each answer's mean.
    shares = 3 * timing.prompt * (len(PROMPT) % 16)
    assert written(timing, lengths) == pytest.approx(forecast + shares, rel=0.05 if timing.token else 1e-6)


def test_a_prompt_is_read_once_until_there_are_new_weights():
    writing, beginning = Writing(engine(prompt=1.0), FORM, 10, 0), list(range(32))

    async def one_after_the_other():
        times = []
        for more in ([], [], [5, 6], None, []):
            began = asyncio.get_running_loop().time()
            if more is None:
                writing.forget()
            else:
                await writing.write(beginning + more, 1, 99)
            times.append(asyncio.get_running_loop().time() - began)
        return times

    assert play(one_after_the_other())[0] == pytest.approx([32 + 10, 10, 2 + 10, 0, 32 + 10])


def test_an_answer_that_is_stopped_for_new_weights_is_gone_on_with():
    writing, stops = Writing(engine(), FORM, 40, 0.5), (7.0, 9.5, 33.0)
    plain = [FORM.answer(seed, 40, 0.5, 99) for seed in range(4)]
    begun = []

    async def one(seed):
        ids = []
        while True:
            more, whole = await writing.write(PROMPT + ids, seed if not ids else 1000 + seed, 99)
            assert writing.open.is_set() or not whole, "nothing is finished while the engine stands still"
            ids += more
            begun.append(len(ids))
            if whole:
                return ids

    async def interrupted():
        answers = asyncio.gather(*(one(seed) for seed in range(4)))
        for before, stop in zip((0.0, *stops), stops):
            await asyncio.sleep(stop - before)
            writing.stop()
            await asyncio.sleep(100)
            writing.open.set()
        return await answers

    answers, seconds = play(interrupted())
    assert answers == plain and len(begun) > 8
    assert 300 + max(map(len, plain)) <= seconds < 303 + max(map(len, plain)), "at most one token is lost at each stop"


def test_answers_are_well_formed_of_the_drawn_lengths_and_as_probable_as_it_says(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rl_async.write_policy(tmp_path)
    delays = {"median": 40, "spread": 1.0, "slots": 2, "weights": 1.0, "token": 0.0, "prompt": 0.0}
    server, tokenizer = Server(str(tmp_path), delays), AutoTokenizer.from_pretrained(tmp_path)
    answers = [server.writing.form.answer(seed, 40, 1.0, 160) for seed in range(400)]
    assert answers[3] == server.writing.form.answer(3, 40, 1.0, 160)
    lengths = [len(ids) for ids in answers]
    assert median(lengths) == pytest.approx(40, rel=0.1) and max(lengths) == 160
    assert 0.05 < sum(length == 160 for length in lengths) / 400 < 0.1  # 8.3 % lie beyond
    assert all(parse_answer(tokenizer.decode(ids, skip_special_tokens=True)).well_formed for ids in answers)

    async def served():
        await server.set_global_steps(6)
        return await server.generate("x", PROMPT, {"seed": 3, "max_tokens": 160})

    output, _ = play(served())
    assert output.token_ids == answers[3] and output.stop_reason == "completed"
    assert output.extra_fields == {"global_steps": 6}
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path)(torch.tensor([answers[3]])).logits[0]
    assert output.log_probs == pytest.approx(logits.log_softmax(-1).max(-1).values.tolist())
