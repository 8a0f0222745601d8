"""P(Yes) of each item of a pair: where the answer is read, how two questions make a judgement, and eval with such a
model."""

import json
import math

import pytest
from aiohttp import web

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.metrics import bad_format, coverage
from alignxplore.judging.judgement import JudgeError, PaperJudgement
from alignxplore.judging.yes_no import ANSWERS, MOST_CHOICES, MOST_TOKENS, YesNoJudge, find_words
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.models import ModelSpec
from alignxplore.statistics import auc
from alignxplore.summarize import count_tokens
from alignxplore.world.tiny import make_tokenizer

HISTORY = (Interaction("red thing", "blue thing"), Interaction("red cup", None, "Which?"))


class YesNoServer:
    """A model whose P(Yes) of an item is `likes(item)`; a tenth of its probability is on other words."""

    def __init__(self, tokenizer, likes):
        self.letters, self.thinking = find_words(tokenizer)
        self.likes, self.asked = likes, []

    def __call__(self, body):
        assert (
            body["messages"][-1]["role"] == "user" and "continue_final_message" not in body and body["max_tokens"] == 1
        )
        assert body["chat_template_kwargs"] == {"enable_thinking": self.thinking}
        text = body["messages"][-1]["content"]
        item = text.split("\nItem: ")[1].split("\n")[0]
        self.asked.append(text)
        pairs = zip(self.letters.tokens, (self.likes(item), 1 - self.likes(item)))
        tops = [{"token": f"token_id:{token}", "logprob": math.log(0.95 * p)} for token, p in pairs]
        return {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ""},
                    "logprobs": {"content": [tops[0] | {"top_logprobs": tops}]},
                }
            ]
        }


@pytest.mark.parametrize("thinking", [True, False])
def test_the_answer_is_read_where_a_trained_one_begins(tokenizer, thinking):
    """Qwen3's template puts an empty think block before it, the plain ChatML one nothing."""
    tokenizer = tokenizer if thinking else make_tokenizer(1, 600, PromptSet())
    letters, asks = find_words(tokenizer)
    assert asks is thinking
    for word, token in zip(ANSWERS, letters.tokens):
        turn = [{"role": "user", "content": "Will the user like this item?"}]
        opened = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=asks
        )
        trained = tokenizer.apply_chat_template(
            [*turn, {"role": "assistant", "content": word}], tokenize=True, return_dict=False
        )
        assert trained[: len(opened)] == opened and trained[len(opened)] == token
        assert word.startswith(tokenizer.decode([token]))


def test_a_template_after_which_no_answer_begins_is_refused(tokenizer):
    import copy

    strange = copy.deepcopy(tokenizer)
    turns = "{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}"
    strange.chat_template = turns + "{% if add_generation_prompt %}assistant says:{% endif %}"
    with pytest.raises(JudgeError, match="Yes and No cannot be read"):
        find_words(strange)


@pytest.mark.parametrize(
    ("chosen", "other", "correct"), [(0.9, 0.2, 1.0), (0.2, 0.9, 0.0), (0.6, 0.6, 0.5), (0.4, 0.3, 1.0)]
)
async def test_the_item_with_the_greater_p_yes_is_the_one_foreseen(fake_server, tokenizer, chosen, other, correct):
    server = YesNoServer(tokenizer, lambda item: chosen if item == "new red" else other)
    item = Interaction("new red", "new blue", "Which?")
    async with fake_server(server) as fake, Endpoint(fake.url) as endpoint:
        judge = YesNoJudge(endpoint, tokenizer, PromptSet())
        assert await judge.check([(HISTORY, item)]) == pytest.approx(0.95)
        judgement = await judge.answer(None, HISTORY, item, "key")
        assert judgement.p_chosen_first == pytest.approx(chosen) and judgement.p_chosen_second == pytest.approx(
            1 - other
        )
        assert judgement.correct == correct and judgement.mass == pytest.approx(0.95)
        answers = {await judge.select(None, HISTORY, item, key) for key in range(8)}
        if correct == 0.5:
            assert {answer.selection for answer in answers} == {None}
        else:
            assert answers == {
                PaperJudgement("ok", letter, f"Item {letter if correct else 'BA'['AB'.index(letter)]}")
                for letter in "AB"
            }
    assert all("Liked: red thing\nDisliked: blue thing" in text for text in server.asked)


async def test_a_model_that_says_neither_is_refused(fake_server, tokenizer):
    server = YesNoServer(tokenizer, lambda item: 0.5)

    def shrug(body):
        reply = server(body)
        for top in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            top["logprob"] -= 1
        return reply

    async with fake_server(shrug) as fake, Endpoint(fake.url) as endpoint:
        with pytest.raises(JudgeError, match="only 0.349 of its probability"):
            await YesNoJudge(endpoint, tokenizer, PromptSet()).check([(HISTORY, Interaction("a", "b"))])


async def test_eval_scores_such_a_model_on_histories_only(fake_server, tokenizer, tmp_path, monkeypatch):
    from alignxplore.evaluation.scoring import EvaluationArguments, evaluate

    records = [UserRecord(f"u{i}", HISTORY, Interaction(f"red {i}", f"blue {i}")) for i in range(20)]
    write_jsonl(tmp_path / "world_films_upi.jsonl", map(user_row, records))
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def likes(item):
        colour, number = item.split()
        return (0.8 if colour == "red" else 0.3) if int(number) % 5 else 0.4

    server = YesNoServer(tokenizer, likes)
    async with fake_server(server) as fake:
        arguments = EvaluationArguments(
            judge=[f"tallrec={fake.url}#{tmp_path / 'tokenizer'}"],
            data=[f"world_films={tmp_path / 'world_films_upi.jsonl'}"],
            out=str(tmp_path / "out"),
            judge_format=["tallrec=yes_no"],
            protocol=["choice", "paper"],
            cues=[],
            baselines=["none"],
            limit=None,
        )
        rows = [result.row() for result in await evaluate(arguments)]
    row_of = {row["protocol"]: row for row in rows if row["policy"] == "tallrec"}
    assert {row["setting"] for row in rows} == {"direct"} and len(rows) == 2
    assert row_of["choice"]["n"] == 20 and row_of["choice"]["accuracy"] == pytest.approx(0.9), "16 right, 4 ties"
    assert row_of["paper"]["accuracy"] == pytest.approx(0.8) and row_of["paper"]["parse_failures"] == pytest.approx(
        0.2
    )
    liked, passed = ([likes(f"{colour} {i}") for i in range(20)] for colour in ("red", "blue"))
    assert row_of["choice"]["auc"] == pytest.approx(auc([*liked, *passed], [True] * 20 + [False] * 20)), (
        "TALLRec's own measure"
    )
    journal_rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "judgements" / "tallrec" / "choice.jsonl").read_text().splitlines()
    ]
    assert len(journal_rows) == 20 and all(row["status"] == "ok" for row in journal_rows)


async def test_a_history_longer_than_the_window_is_cut_before_the_model_is_first_asked(
    fake_server, tokenizer, tmp_path, monkeypatch
):
    from alignxplore.evaluation.scoring import EvaluationArguments, evaluate

    window, server = 1024, YesNoServer(tokenizer, lambda item: 0.8 if "red" in item else 0.3)
    records = [UserRecord(f"u{i}", HISTORY * (1 if i else 60), Interaction(f"red {i}", f"blue {i}")) for i in range(3)]
    records.append(
        UserRecord("u3", (Interaction("red thing " * window, "blue"),), Interaction("red", "blue"))
    )  # nothing of it fits
    write_jsonl(tmp_path / "world_films_upi.jsonl", map(user_row, records))
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def strict(body):
        tokens = count_tokens(tokenizer, body["messages"], server.thinking)
        return server(body) if tokens < window else web.Response(status=400, text=f"{tokens} tokens are too many")

    async with fake_server(strict, max_model_len=window) as fake:
        results = await evaluate(
            EvaluationArguments(
                judge=[f"tallrec={fake.url}#{tmp_path / 'tokenizer'}"],
                data=[f"personamem={tmp_path / 'world_films_upi.jsonl'}"],
                out=str(tmp_path / "out"),
                judge_format=["yes_no"],
                protocol=["choice", "paper"],
                cues=[],
                baselines=["none"],
            )
        )
    # Three are read, and right. What does not fit at all is bad format: 0.5 in choice, 0 in paper.
    assert [(row.accuracy, row[bad_format], row[coverage]) for row in results] == [(3.5 / 4, 0.25, 1), (0.75, 0.25, 1)]


async def test_no_more_is_shown_than_in_training(fake_server, tokenizer, tmp_path, monkeypatch):
    from alignxplore.evaluation.scoring import EvaluationArguments, evaluate

    longest = (Interaction("red thing " * 100, "blue"),) * MOST_CHOICES
    records = [
        UserRecord("many", HISTORY * 60, Interaction("red 1", "blue 1")),
        UserRecord("long", longest, Interaction("red 2", "blue 2")),
    ]
    write_jsonl(tmp_path / "personamem_upi.jsonl", map(user_row, records))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    server, tokens = YesNoServer(tokenizer, lambda item: 0.8 if "red" in item else 0.3), []

    def answer(body):
        tokens.append(count_tokens(tokenizer, body["messages"], server.thinking))
        return server(body)

    async with fake_server(answer, max_model_len=40960) as fake:
        await evaluate(
            EvaluationArguments(
                judge=[f"tallrec={fake.url}#{tmp_path / 'tokenizer'}"],
                data=[str(tmp_path / "personamem_upi.jsonl")],
                out=str(tmp_path / "out"),
                judge_format=["yes_no"],
                cues=[],
            )
        )
    assert {text.count("\nLiked: ") for text in server.asked if "1" in text.split("\nItem: ")[1]} == {MOST_CHOICES}
    assert MOST_TOKENS - 1000 < max(tokens) <= MOST_TOKENS
    dropped = {
        row["user"]: row["dropped"]
        for row in map(json.loads, (tmp_path / "out" / "scores.jsonl").read_text().splitlines())
    }
    assert dropped["many"] == 120 - MOST_CHOICES and 0 < dropped["long"] < MOST_CHOICES
    assert json.loads((tmp_path / "out" / "run.json").read_text())["judges"]["tallrec"]["window"] == MOST_TOKENS


def test_an_adapter_is_no_model_and_the_remedy_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(
        FileNotFoundError, match=r"holds a LoRA adapter.*merge_adapter\.py --adapter .* --out .*_merged"
    ):
        ModelSpec.parse(f"tallrec={tmp_path}")
