"""What the stages are shown of a history that does not fit: our way, the published one, and how often they differ."""

import pytest

from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.benchmarks import Benchmark, SummarySet
from alignxplore.evaluation.conditions import of_summaries
from alignxplore.evaluation.fits import Fit, read_interactions, stage_slices
from alignxplore.evaluation.generation import generate
from alignxplore.evaluation.metrics import shown_otherwise
from alignxplore.evaluation.report.layouts import details
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.scores import score_rows
from alignxplore.history import HistoryError, halve
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.summarize import count_tokens
from tests.evaluation.made_up import answered

PROMPTS = PromptSet()
GOOD = "<think>\nI read\n</think>\n\nfilms"


def tokens(tokenizer, interactions) -> int:
    return count_tokens(tokenizer, PROMPTS.infer(interactions))


def test_halving_keeps_the_newer_half_until_the_prompt_is_below_the_limit():
    items = tuple(Interaction(str(i)) for i in range(11))
    assert halve(items, len, 12) == (items, 0, 11), "below"
    assert halve(items, len, 11) == (items[6:], 6, 5), "at the limit is too much; five of eleven are left"
    assert halve(items, len, 5) == (items[9:], 9, 2)
    with pytest.raises(HistoryError, match="takes 1 tokens with the newest interaction alone, the limit is 1"):
        halve(items, len, 1)


@pytest.fixture
def fit(tokenizer):
    def make(task="recommendation", setting="full", stages=1, window=16384, max_tokens=64) -> Fit:
        options = {"task": task, "setting": setting, "stages": stages, "window": window, "max_tokens": max_tokens}
        return Fit(tokenizer, PROMPTS, form="think", **options)

    return make


def test_the_published_way_halves_the_whole_history_and_only_then_cuts_it(fit, tokenizer, record):
    history = record("u", 12).history
    window = tokens(tokenizer, history)  # one token too little for all of it
    full, stream = fit(window=window).plan("published", history), fit("selection", window=window)
    assert full.slices == [history[6:10]] and (full.dropped, full.budget) == (6, window - 1)
    assert fit(window=window).plan("ours", history).slices == [history[:8]], "two thirds of all"
    assert stream.plan("published", history).slices == [history[6:]]
    assert fit(window=window + 1).plan("published", history).slices == [history[:8]]


def test_the_published_streams_divide_the_window_by_1_2(fit, tokenizer, record):
    history = record("u", 12).history
    all_tokens = tokens(tokenizer, history)
    for window, first in ((all_tokens * 1.2 + 2, 0), (all_tokens * 1.2 - 2, 6)):
        stream = fit(setting="streaming", stages=2, window=int(window))
        visible = history[first:]
        third = len(visible) // 3
        assert stream.plan("published", history).slices == [visible[:third], visible[third : 2 * third]]
        assert fit(window=int(window)).plan("published", history).dropped == 0, "full history is not divided"


@pytest.mark.parametrize("task", ["selection", "generation"])
def test_published_streams_of_other_sets_are_not_halved(fit, tokenizer, record, task):
    """Full history is. What then does not fit ends the published run; here a stage loses its oldest interactions."""
    history = record("u", 12).history
    for window in (tokens(tokenizer, history) + 1, tokens(tokenizer, history[:6])):
        plan = fit(task, "streaming", 2, window).plan("published", history)
        assert plan.slices == [history[:6], history[6:]] and (plan.dropped, plan.budget) == (0, window - 1)
    assert fit(task, window=window).plan("published", history).slices == [history[9:]]


def test_the_published_thirds_of_fewer_than_three_interactions_are_nothing(fit, tokenizer, record):
    history = record("u", 4).history
    window = tokens(tokenizer, history)  # two are left
    with pytest.raises(HistoryError, match="nothing is left to show: 2 of 4 interactions fit"):
        fit(window=window).plan("published", history)
    assert fit("selection", window=window).plan("published", history).slices == [history[2:]]
    assert fit(window=window + 1).plan("published", history).slices == [history[:2]]
    assert fit().plan("ours", history[2:]).slices == [history[2:3]]


@pytest.fixture
def write(fake_server, say, tokenizer, record, benchmark_file, tmp_path):
    """`write(window, fit, replies)`: one user of 12 films; returns (the row, the requests)."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = benchmark_file("movielens", [record("u", 12)])

    async def run(
        window: int, fit: str, replies=(GOOD, GOOD), setting="streaming", max_tokens=64
    ) -> tuple[dict, list[dict]]:
        queue = list(replies)
        async with fake_server(lambda body: say(queue.pop(0)), max_model_len=window) as server:
            arguments = GenerationArguments(
                model=[f"ours={server.url}#{tmp_path / 'tokenizer'}"],
                data=[str(path)],
                out=str(tmp_path / "out"),
                settings=[setting],
                max_tokens=max_tokens,
                fit=fit,
            )
            await generate(arguments)
            summaries = SummarySet(tmp_path / "out", "ours", "movielens", setting, 0)
            (row,) = summaries.by_record().values()
            assert summaries.meta()["fit"] == fit
            return row, server.bodies

    return run


@pytest.mark.parametrize("fit", ["ours", "published"])
async def test_where_all_fits_both_ways_show_the_same(write, fit, record):
    history = record("u", 12).history
    row, bodies = await write(16384, fit)
    prompts = [PROMPTS.infer(history[:4]), PROMPTS.infer(history[4:8], "films")]
    assert [body["messages"] for body in bodies] == prompts and row["shown_otherwise"] is False
    assert [body["max_tokens"] for body in bodies] == [64, 64]


async def test_rows_that_are_cut_otherwise_are_counted_from_either_side(write, record, tokenizer, caplog):
    """All twelve films are too much for the published way; a third of them is not."""
    caplog.set_level("INFO")
    history = record("u", 12).history
    window = int(1.2 * tokens(tokenizer, history)) - 2
    row, bodies = await write(window, "ours")
    assert [body["messages"] for body in bodies] == [PROMPTS.infer(history[:4]), PROMPTS.infer(history[4:8], "films")]
    assert row["shown_otherwise"] is True and [stage["dropped"] for stage in row["stages"]] == [0, 0]
    own_run = row["run"]
    row, bodies = await write(window, "published")
    assert [body["messages"] for body in bodies] == [
        PROMPTS.infer(history[6:8]),
        PROMPTS.infer(history[8:10], "films"),
    ]
    assert row["shown_otherwise"] is True and [stage["dropped"] for stage in row["stages"]] == [6, 0]
    assert row["run"] != own_run, "other summaries"
    assert "movielens streaming seed 0: 1 of 1 rows were shown otherwise than by the published fit" in caplog.text
    assert "movielens streaming seed 0: 1 of 1 rows were shown otherwise than by our fit" in caplog.text


def test_what_stages_were_shown_is_known_from_the_counts_of_their_row():
    """Ours drops from each slice. The published way halves first, and a later stage may still drop."""
    places = range(12)
    assert stage_slices("ours", "recommendation", places, [1, 2]) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert stage_slices("published", "recommendation", places, [6, 1]) == [(0, 1, 2, 3, 4, 5, 6, 7), (8, 9)]
    row = {"stages": [{"dropped": 6}, {"dropped": 1}]}
    assert read_interactions("published", "recommendation", places, row) == (6, 7, 9)
    assert read_interactions("published", "selection", places, {"stages": [{"dropped": 6}]}) == (6, 7, 8, 9, 10, 11)
    assert stage_slices("published", "selection", places, [3, 2]) == [(0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11)]
    assert read_interactions("ours", "selection", places, {"stages": [{"dropped": 5}, {"dropped": 1}]}) == (
        5,
        *range(7, 12),
    )
    assert stage_slices("ours", "selection", places, []) == []


async def test_the_published_way_leaves_no_room_and_the_answer_is_shorter(write, record, tokenizer):
    history = record("u", 12).history
    window = tokens(tokenizer, history) + 1
    room = window - tokens(tokenizer, history[:8])
    for max_tokens, differs in ((room, False), (room + 1, True)):
        row, bodies = await write(window, "published", [GOOD], "full", max_tokens)
        assert bodies[0]["messages"] == PROMPTS.infer(history[:8]) and bodies[0]["max_tokens"] == room
        assert row["shown_otherwise"] is differs, "ours would make room"


async def test_an_answer_in_bad_format_is_handed_on_as_it_is_or_not_at_all(write, record):
    history, unclosed = record("u", 12).history, "<think>\nLikes the sea"
    row, bodies = await write(16384, "ours", [unclosed, GOOD])
    assert bodies[1]["messages"] == PROMPTS.infer(history[4:8]) and row["shown_otherwise"] is True
    row, bodies = await write(16384, "published", [unclosed, GOOD])
    assert bodies[1]["messages"] == PROMPTS.infer(history[4:8], unclosed) and row["shown_otherwise"] is True
    row, bodies = await write(16000, "published", ["two</think>\n</think>\n\nLikes the sea", GOOD])  # another window
    assert bodies[1]["messages"] == PROMPTS.infer(history[4:8], "Likes the sea")


async def test_the_share_of_rows_shown_otherwise_stands_in_the_results(write, record, tokenizer, tmp_path):
    window = int(1.2 * tokens(tokenizer, record("u", 12).history)) - 2
    await write(window, "published")
    benchmark = Benchmark("movielens", "recommendation", (record("u", 12),), tmp_path / "movielens_upi.jsonl")
    cell = of_summaries(SummarySet(tmp_path / "out", "ours", "movielens", "streaming", 0), benchmark)
    answer = {"status": "ok", "selection": "Item A", "letter": "A"}
    (result,) = rows = result_rows(score_rows(cell, "qwen", "paper", answered([[answer]])))
    assert result[shown_otherwise] == 1
    table = details(rows, "paper")
    assert table.body[0][table.head.index("shown otherwise %")] == "100.00"


async def test_a_history_cut_to_nothing_is_a_final_outcome(write, tokenizer):
    row, bodies = await write(tokens(tokenizer, []) + 65, "published")
    assert row["status"] == "too_long" and bodies == [] and "with the newest interaction alone" in row["error"]
