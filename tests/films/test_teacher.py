"""The teacher for films: what it says of each prompt is what the choices in it show."""

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from alignxplore.films.teacher import answer
from alignxplore.films.text import level_of, read_summary, tally
from alignxplore.prompts import PromptSet, parse_answer, parse_merge
from alignxplore.records import Interaction
from alignxplore.world.oracle import chat_app

NAMES = ["Comedy", "Drama", "Horror", "War", "pre-1970", "1990s"]
COMEDY, DRAMA = "Title: One (1994), Genres: Comedy", "Title: Two (1941), Genres: Drama|War"
ODD = "Title: Three (1999), Genres: Opera|Comedy"  # Opera has no name
CHOICES = [*[Interaction(COMEDY, DRAMA, "Which film?")] * 3, Interaction(ODD)]
COUNTED = "Counts: Comedy +4 Drama -3 Horror 0 War -3 pre-1970 -3 1990s +4"
AGREED = ["Comedy loved", "Drama hated", "Horror disliked"]  # by most annotators
TRUE = {"Comedy": 2, "Drama": -1, "War": -1, "pre-1970": -1, "1990s": 2}


def ask(purpose, seed=0, most=8, **slots):
    return answer(PromptSet().render(purpose, **slots)[-1]["content"], seed, NAMES, most)


def infer(seed=0, most=8, past=None):
    return answer(PromptSet().infer(CHOICES, past)[-1]["content"], seed, NAMES, most)


def test_it_counts_and_tells_some_of_what_is_true():
    answers = [parse_answer(infer(seed)) for seed in range(60)]
    assert {answer.reasoning for answer in answers} == {COUNTED} and all(answer.well_formed for answer in answers)
    summaries = [read_summary(answer.summary) for answer in answers]
    assert all(TRUE[name] == level for summary in summaries for name, level in summary)
    assert {name for summary in summaries for name, _ in summary} == set(TRUE)
    assert {len(summary) for summary in summaries} == {0, 1, 2, 3, 4, 5}, "uneven; Opera is nothing that can be told"
    for summary in summaries:
        assert [name for name, _ in summary] == [name for name in NAMES if name in dict(summary)]
    assert {len(read_summary(parse_answer(infer(seed, most=1)).summary)) for seed in range(20)} == {0, 1}


def test_the_same_request_has_the_same_answer():
    assert infer(3) == infer(3) and len({infer(seed) for seed in range(20)}) > 5


def test_what_was_known_before_counts_along():
    answer = parse_answer(infer(past="Films: Comedy hated, Drama disliked, Horror loved, Opera loved."))
    assert answer.reasoning == "Counts: Comedy 0 Drama -5 Horror +4 War -3 pre-1970 -3 1990s +4"
    statements = {}
    for seed in range(40):
        statements |= read_summary(parse_answer(infer(seed, past="Films: Comedy hated, Horror loved.")).summary)
    assert statements == {"Drama": -1, "Horror": 2, "War": -1, "pre-1970": -1, "1990s": 2}, "Comedy evens out"


def test_what_bears_on_a_hint_is_always_said():
    slots = {
        "interactions": CHOICES,
        "query": "Which film?",
        "item_a": ODD,
        "item_b": "Title: Four, Genres: War|Horror",
    }
    for past in (None, "Films: War liked."):
        counts, complete = tally(CHOICES, read_summary(past or "")), 0
        for seed in range(30):
            answer = parse_answer(ask("infer_hint", seed, most=1, past_summary=past, **slots))
            statements = dict(read_summary(answer.summary))
            assert {"Comedy", "1990s", "War"} <= set(statements), "of Horror nothing is known"
            assert all(level == level_of(counts[name]) for name, level in statements.items())
            assert answer.reasoning.startswith("Counts: Comedy +4 Drama -3 Horror 0 War ")
            complete += set(statements) == set(TRUE)
        assert complete == 0, "and not everything"


def test_merging_tells_what_most_say_as_strongly_as_these_say_it():
    texts = [
        ("Counts: Comedy +2", "Films: Comedy liked, Drama hated, War liked, 1990s loved."),
        ("other", "Films: Comedy loved, Drama disliked, War disliked."),
        ("other", "Films: 1990s disliked, Comedy disliked, Drama loved, Opera loved."),
        ("other", "No strong preferences."),
        ("other", "Films: Drama disliked, Horror hated, Horror disliked."),
    ]
    merged = parse_merge(ask("merge", summaries=texts))
    assert merged.reasoning == "Counts: Comedy +2" and merged.summary == f"Films: {', '.join(AGREED)}."
    brief = {parse_merge(ask("merge", seed, most=1, summaries=texts)).summary for seed in range(40)}
    said_alone = {f"Films: {text}." for text in AGREED}
    assert brief == said_alone | {"No strong preferences."}, "any of them; Opera is nothing that can be told"
    split = [("r", "Films: Comedy liked, Drama hated."), ("r", "Films: Comedy hated, Drama loved.")]
    assert parse_merge(ask("merge", summaries=split)).summary == "No strong preferences."
    lone = [("r", "Films: Comedy hated."), ("r", "Films: Comedy liked."), ("r", "Films: Comedy liked.")]
    assert parse_merge(ask("merge", summaries=lone)).summary == "Films: Comedy liked.", "not as strongly as the other"


def test_other_prompts_are_none_of_its_kinds():
    judged = PromptSet().judge("Films: Comedy liked.", "Which film?", COMEDY, DRAMA)[-1]["content"]
    assert answer(judged, 0, NAMES, 8) is None and answer("What is the weather?", 0, NAMES, 8) is None


@pytest.mark.parametrize(("choices", "status"), [(CHOICES, 200), ([], 400)])
async def test_it_answers_behind_a_server(choices, status):
    app = chat_app("teacher", lambda prompt, seed: answer(prompt, seed, NAMES, 8), "not about films")
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        body = {"model": "teacher", "messages": PromptSet().infer(choices), "seed": 7}
        async with session.post(server.make_url("/v1/chat/completions"), json=body) as reply:
            received = await reply.json()
    assert reply.status == status
    if status == 200:
        assert received["choices"][0]["message"]["content"] == infer(7)
    else:
        assert received["error"]["message"] == "not about films"
