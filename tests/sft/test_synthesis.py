"""Synthesis: users pass or leave at the right step, the funnel adds up, and a stopped run asks nothing twice."""

import asyncio
import contextlib
import json
import math
import re

import pytest
from aiohttp import web
from funnel import STEPS, Funnel, LiveFunnel, users_left
from prepare_dataset import prepare
from rounds import DONE, Thresholds, Workshop, pick_targets, synthesise_user
from streams import read_behaviours
from synthesize import EXAMPLES, SynthesisArguments, journalled, main, synthesise, write_outputs

from alignxplore import datasets
from alignxplore.endpoint import Endpoint, RequestError
from alignxplore.journal import Journal
from alignxplore.judge import Judge
from alignxplore.models import Model
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, user_row, write_jsonl
from alignxplore.summarize import Sampling, count_tokens

ITEMS = [Interaction(f"red thing {i}", f"blue thing {i}") for i in range(18)]
SURE = dict.fromkeys(range(18), 0.95)
GOOD = "<think>\nchooses red\n</think>\n\nLikes red."
MERGED = "<joined_reasoning>\nchooses red\n</joined_reasoning>\n<joined_description>\nLikes red.\n</joined_description>"
MERGING = "Annotator 1 concluded"


def good(text: str) -> str:
    return MERGED if MERGING in text else GOOD


def is_judge(body: dict) -> bool:
    return body.get("max_tokens") == 1


class Models:
    """Teacher and judge in one: the judge follows the colour that the summary names; `say` is the teacher's answer."""

    def __init__(self, tokenizer, say=good):
        self.letters, self.say, self.asked = Judge(None, tokenizer, PromptSet()).letters, say, []

    def __call__(self, body: dict) -> dict:
        text = body["messages"][-2 if is_judge(body) else -1]["content"]
        self.asked.append((is_judge(body), text))
        if not is_judge(body):
            said = self.say(text)  # text, or the message's fields
            message = {"role": "assistant"} | (said if isinstance(said, dict) else {"content": said})
            return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        colour = re.search(r"Likes (\w+)\.", text)
        sure = 0.9 if colour and re.search(rf"Item A: {colour[1]}", text) else 0.1 if colour else 0.5
        pairs = [(self.letters.tokens[0], sure), (self.letters.tokens[1], 1 - sure)]
        tops = [{"token": f"token_id:{token}", "logprob": math.log(p)} for token, p in pairs]
        content = [tops[0] | {"top_logprobs": tops}]
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "logprobs": {"content": content}}]}


@pytest.fixture
def through(fake_server, tokenizer, tmp_path):
    """`await through(items, signal, say)` → (row of the user, the requests made)."""

    async def run(items=ITEMS, signal=SURE, say=good, window=16384):
        models = Models(tokenizer, say)
        async with fake_server(models) as server, Endpoint(server.url) as endpoint:
            with Journal(tmp_path / "calls.jsonl") as journal:
                teacher = Model("teacher", endpoint, tokenizer, "t")
                judge, sampling = Judge(endpoint, tokenizer, PromptSet()), Sampling(max_tokens=64)
                shop = Workshop(teacher, judge, PromptSet(), sampling, Thresholds(), window, journalled(journal), "x")
                return await synthesise_user(shop, "u", items, signal), models.asked

    return run


async def test_a_user_who_passes_gives_two_rows_with_the_plain_prompt(through):
    row, asked = await through()
    assert row["outcome"] == DONE and len(row["rows"]) == 2
    first, second = row["rows"]
    assert first["prompt"] == PromptSet().infer(ITEMS[:6]) and second["prompt"] == PromptSet().infer(ITEMS[6:12], "Likes red.")
    assert first["completion"] == [{"role": "assistant", "content": GOOD}] and first["template"] == PromptSet().hash("infer")
    hinted = [text for judge, text in asked if not judge and "next have to choose" in text]
    assert len(hinted) == 10 and all(re.search(r"Item A: .* thing (6|7|8|9|1\d)", text) for text in hinted)


@pytest.mark.parametrize(
    ("outcome", "change"),
    [
        ("history_too_short", {"items": ITEMS[:8]}),
        ("too_few_targets_1", {"signal": {i: 0.95 for i in (6, 7, 8, 12, 13, 14, 15)}}),
        ("too_few_targets_2", {"signal": {i: 0.95 for i in (6, 7, 8, 9, 12, 13)}}),
        ("too_few_verified_1", {"say": lambda text: GOOD.replace("Likes red", "Likes blue")}),
        ("too_few_verified_1", {"say": lambda text: "Likes red."}),
        ("merge_bad_format_1", {"say": lambda text: GOOD}),
        ("merge_bad_format_1", {"say": lambda text: MERGED.replace("chooses", "Both annotators say: chooses") if MERGING in text else GOOD}),
        ("merged_too_poor_1", {"say": lambda text: MERGED.replace("red.", "blue.") if MERGING in text else GOOD}),
        ("too_few_verified_2", {"say": lambda text: good(text) if "newer choices" not in text else GOOD.replace("red.", "blue.")}),
    ],
)
async def test_users_leave_the_funnel_at_the_right_step(through, outcome, change):
    row, _ = await through(**change)
    assert row["outcome"] == outcome and row["rows"] == []
    funnel = Funnel()
    funnel.add(row | {"dropped_behaviours": 0})
    assert funnel.counts()["outcomes"] == {outcome: 1}


THOUGHT = "Annotator 1 says red, and so do the others. <joined_reasoning>like that</joined_reasoning>"


@pytest.mark.parametrize("answer", [
    {"reasoning": THOUGHT, "content": MERGED},
    {"content": f"<think>\n{THOUGHT}\n</think>\n\n{MERGED}"},
    {"content": f"{THOUGHT}\n</think>\n\n{MERGED}"},  # the chat template opened the block
    {"reasoning": MERGED, "content": None},  # a server that takes for reasoning whatever no tag ends
])  # fmt: skip
async def test_what_a_teacher_thinks_about_merging_is_not_what_the_policy_learns(through, answer):
    row, _ = await through(say=lambda text: answer if MERGING in text else GOOD)
    assert row["outcome"] == DONE and [r["completion"] for r in row["rows"]] == [[{"role": "assistant", "content": GOOD}]] * 2


async def test_a_merge_is_asked_for_without_thinking(fake_server, tokenizer, arguments):
    async with fake_server(Models(tokenizer, good)) as server:
        assert (await synthesise(arguments(server.url)))["outcomes"] == {DONE: 2}
    for body in server.bodies:
        thinking = not is_judge(body) and MERGING not in body["messages"][-1]["content"]
        assert body["chat_template_kwargs"] == {"enable_thinking": thinking}


async def test_an_interrupted_user_asks_nothing_twice(through):
    row, asked = await through()
    again, asked_again = await through()
    assert again == row and asked and not asked_again


def finished(outcome: str, number: int) -> dict:
    """A user's row in the journal; of those who are done each gave two SFT rows."""
    reached = 2 if outcome == DONE or outcome.endswith("_2") else 1
    notes = [{"round": i + 1, "targets": 5, "well_formed": 5, "verified": 4} for i in range(reached)]
    return {"uid": f"{outcome} {number}", "outcome": outcome, "rounds": notes, "rows": [{}, {}] if outcome == DONE else [],
            "dropped_behaviours": 2}


def test_the_funnel_adds_up_whatever_the_outcomes(tmp_path, capsys, monkeypatch):
    outcomes = [outcome for lost in STEPS.values() for outcome in lost] + [DONE]
    rows = [finished(outcome, i) for place, outcome in enumerate(outcomes) for i in range(3 * place + 1)]
    counts = write_outputs(tmp_path, iter(rows), {})
    assert counts["users"] == len(rows) == sum(counts["outcomes"].values())
    assert counts["dropped_behaviours"] == 2 * len(rows)
    before = counts["users"]
    for step, left in counts["left"].items():
        assert before - left == sum(counts["outcomes"][outcome] for outcome in STEPS[step]) > 0, step
        before = left
    assert before == counts["outcomes"][DONE] and counts["sft_rows"] == 2 * before
    kept = [json.loads(line)["outcome"] for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert {outcome: kept.count(outcome) for outcome in kept} == {
        outcome: min(EXAMPLES, counts["outcomes"][outcome]) for outcome in outcomes if outcome != DONE
    }
    monkeypatch.setattr("funnel.REPORT_SECONDS", 0)
    live = LiveFunnel(len(rows), rows[:10])
    for row in rows[10:]:
        live.add(row)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(rows) - 10 and said[-1].startswith(f"[funnel] {len(rows)} of {len(rows)} users | answered ")
    assert said[-1].endswith(f"> merged verified {before}") and "| round 2: enough targets" in said[-1]
    with pytest.raises(AssertionError, match="without a place in the funnel: {'lost'}"):
        users_left(live.outcomes + live.outcomes.__class__(lost=1))


def test_targets_are_foreseeable_pairs_drawn_by_content():
    items = [*ITEMS[:10], Interaction("alone")]
    places = pick_targets(range(4, 11), dict.fromkeys(range(11), 0.95) | {5: 0.9}, items, "u", Thresholds())
    assert len(places) == 5 and 5 not in places and 10 not in places and places == sorted(places)
    assert places == pick_targets(range(4, 11), dict.fromkeys(range(11), 0.95) | {5: 0.9}, items, "u", Thresholds())


async def test_the_command_writes_rows_funnel_and_failures_and_is_not_done_twice(fake_server, tokenizer, model_folder, tmp_path):
    records = [UserRecord(f"u{n}", tuple(ITEMS[:17] if n % 3 else ITEMS[:5]), ITEMS[17]) for n in range(9)]
    users, scores = tmp_path / "mind_upi.jsonl", tmp_path / "scores.jsonl"
    write_jsonl(users, map(user_row, records))
    write_jsonl(scores, ({"id": r.id, "scores": [{"position": i, "p": 0.95} for i in range(18)], "dropped": 0} for r in read_behaviours(users, None)))
    models = Models(tokenizer)
    async with fake_server(models) as server:
        target = f"m={server.url}#{model_folder}"
        out = tmp_path / "out"
        args = SynthesisArguments(
            data=str(users), scores=str(scores), output=str(out), teacher=target, judge=target, max_tokens=64
        )
        counts = await synthesise(args)
        assert counts["users"] == 9 and counts["outcomes"] == {"history_too_short": 3, DONE: 6} and counts["sft_rows"] == 12
        first = (out / "sft.jsonl").read_text()
        assert f"Request: {datasets.get('mind').default_query}" in json.loads(first.splitlines()[0])["prompt"][1]["content"]
        asked = len(models.asked)
        lines = (out / "users.jsonl").read_text().splitlines(keepends=True)
        (out / "users.jsonl").write_text("".join(lines[:3]) + lines[3][:30])  # killed while a line was written
        args.judge = None  # the teacher itself
        assert await synthesise(args) == counts and (out / "sft.jsonl").read_text() == first
        assert len(models.asked) - asked <= 8, "only the judge's own check may be asked again"
    assert len((out / "failures.jsonl").read_text().splitlines()) == 3
    assert json.loads((out / "funnel.json").read_text()) == counts and (out / "funnel.png").stat().st_size > 1000
    write_jsonl(users, map(user_row, [*records, UserRecord("u9", ITEMS[:5], ITEMS[17])]))
    with pytest.raises(RecordError, match=r"mind_upi.jsonl:10: no scores in .*scores.jsonl; run signal_model.py score"):
        await synthesise(args)


def test_an_address_without_a_scheme_is_one_sentence(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "users.jsonl", [user_row(UserRecord("u", tuple(ITEMS[:17]), ITEMS[17]))])
    write_jsonl(tmp_path / "scores.jsonl", [{"id": UserRecord("u", tuple(ITEMS[:17]), ITEMS[17]).id, "scores": [], "dropped": 0}])
    options = {"data": tmp_path / "users.jsonl", "scores": tmp_path / "scores.jsonl", "output": tmp_path, "teacher": "t=127.0.0.1:8000/v1"}
    monkeypatch.setattr("sys.argv", ["synthesize.py", *(str(part) for name, value in options.items() for part in (f"--{name}", value))])
    with pytest.raises(SystemExit, match="^synthesize.py: '127.0.0.1:8000/v1' has no scheme"):
        main()


@pytest.fixture
def arguments(tmp_path, model_folder):
    """`arguments(url, users=2, **options)` → options of a run over users of whom every choice can be foreseen."""

    def make(url: str, users: int = 2, **options) -> SynthesisArguments:
        records = [UserRecord(f"u{n}", tuple(ITEMS[:17]), ITEMS[17]) for n in range(users)]
        write_jsonl(tmp_path / "users.jsonl", map(user_row, records))
        scores = [{"position": i, "p": 0.95} for i in range(18)]
        write_jsonl(tmp_path / "scores.jsonl", ({"id": record.id, "scores": scores, "dropped": 0} for record in records))
        return SynthesisArguments(data=str(tmp_path / "users.jsonl"), scores=str(tmp_path / "scores.jsonl"),
                                  output=str(tmp_path / "out"), **{"teacher": f"m={url}#{model_folder}", "max_tokens": 64} | options)

    return make


async def test_a_request_may_take_the_time_asked_for_and_as_many_are_in_flight(fake_server, tokenizer, arguments):
    models, flying, most, seen = Models(tokenizer), 0, 0, set()

    async def slow_at_first(body: dict) -> dict:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        text = json.dumps(body)
        try:
            await asyncio.sleep(0 if is_judge(body) or text in seen else 0.3)
            return models(body)
        finally:  # also where the client has hung up
            seen.add(text)
            flying -= 1

    async with fake_server(slow_at_first) as server:
        assert (await synthesise(arguments(server.url, timeout=30, requests=4)))["outcomes"] == {DONE: 2}
        writes = [body for body in server.bodies if not is_judge(body)]
        assert most == 4 and len(writes) == 25, "of two users two rounds of five drafts and a merge each, and the check before them"
        seen.clear()
        assert (await synthesise(arguments(server.url, timeout=0.1, temperature=0.5)))["outcomes"] == {DONE: 2}
        assert sum(not is_judge(body) for body in server.bodies) > 2 * 25, "what took too long was asked again"


@pytest.mark.parametrize(
    ("status", "say", "outcome"),
    [
        (402, "no credit left", "unanswered"),
        (403, "not allowed", "unanswered"),
        (400, "This model's maximum context length is 2048 tokens", "prompt_too_long_1"),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 2048", "prompt_too_long_1"),
    ],
)
async def test_only_a_prompt_that_is_too_long_is_final(fake_server, tokenizer, arguments, status, say, outcome):
    models, refusing = Models(tokenizer), True

    def answer(body: dict):
        hinted = not is_judge(body) and "next have to choose" in body["messages"][-1]["content"]
        return web.json_response({"error": {"message": say}}, status=status) if hinted and refusing else models(body)

    async with fake_server(answer) as server:
        assert (await synthesise(arguments(server.url, max_error_rate=1)))["outcomes"] == {outcome: 2}
        refusing = False
        again = (await synthesise(arguments(server.url)))["outcomes"]
    assert again == {DONE if outcome == "unanswered" else outcome: 2}


async def test_a_judge_that_refuses_is_asked_again_unless_the_summary_is_too_long(fake_server, tokenizer, arguments):
    models, text = Models(tokenizer), "quota exceeded"

    def answer(body: dict):
        refused = is_judge(body) and text and "Likes red." in body["messages"][-2]["content"]
        return web.json_response({"error": {"message": text}}, status=403) if refused else models(body)

    async with fake_server(answer) as server:
        assert (await synthesise(arguments(server.url, max_error_rate=1)))["outcomes"] == {"unanswered": 2}
        text = "exceeds the maximum allowed length"
        assert (await synthesise(arguments(server.url)))["outcomes"] == {"judge_too_long_1": 2}
        text = ""
        assert (await synthesise(arguments(server.url)))["outcomes"] == {"judge_too_long_1": 2}, "that was final"


@pytest.mark.parametrize(("refused", "outcome", "step"), [
    (lambda body: MERGING in body["messages"][-1]["content"], "merge_too_long_1", "merge fits"),
    (lambda body: is_judge(body) and "Ever more so." in body["messages"][-2]["content"], "merged_too_long_1", "merged verified"),
])  # fmt: skip
async def test_what_is_too_long_only_once_it_is_merged_leaves_there(fake_server, tokenizer, arguments, refused, outcome, step):
    """The steps of the funnel are in the order in which users take them, so that who is left after one has passed it."""
    models = Models(tokenizer, lambda text: MERGED.replace("red.", "red. Ever more so.") if MERGING in text else GOOD)

    def answer(body: dict):
        too_long = {"error": {"message": "exceeds the maximum allowed length"}}
        return web.json_response(too_long, status=400) if refused(body) else models(body)

    async with fake_server(answer) as server:
        counts = await synthesise(arguments(server.url, users=1))
    assert counts["outcomes"] == {outcome: 1}
    assert next(name for name, left in counts["left"].items() if not left) == f"round 1: {step}"


async def test_lines_that_say_the_same_count_once(fake_server, tokenizer, arguments):
    async with fake_server(Models(tokenizer, good)) as server:
        args = arguments(server.url)
        with open(args.data, "a") as file:
            file.write(open(args.data).readline())
        counts = await synthesise(args)
    assert counts["users"] == 2 and counts["sft_rows"] == 4


async def test_a_file_that_holds_no_scores_is_named_with_line_and_field(arguments):
    args = arguments("http://127.0.0.1:1/v1")
    args.scores = args.data
    with pytest.raises(RecordError, match="users.jsonl:1: field 'id': missing or of a wrong kind; give the scores.jsonl"):
        await synthesise(args)


async def test_what_no_user_can_pass_is_said_before_the_first_one(fake_server, tokenizer, arguments, tmp_path):
    models = Models(tokenizer)

    def answer(body: dict):
        return models(body) if is_judge(body) else web.json_response({"error": {"message": "top_k: unknown field"}}, status=400)

    async with fake_server(answer, max_model_len=4096) as server:
        with pytest.raises(RequestError, match="top_k: unknown field"):
            await synthesise(arguments(server.url))
        with pytest.raises(ValueError, match="a window of 4096 tokens leaves no room for a prompt beside an answer of 4096"):
            await synthesise(arguments(server.url, max_tokens=4096))
    assert (tmp_path / "out" / "users.jsonl").read_text() == ""


async def test_of_long_drafts_as_many_are_merged_as_fit(through, tokenizer):
    draft = GOOD.replace("chooses red", "chooses red " * 200)
    merging = PromptSet().render("merge", summaries=[(("chooses red " * 200).strip(), "Likes red.")] * 3)
    window = count_tokens(tokenizer, merging, thinking=False) + 64
    row, asked = await through(say=lambda text: MERGED if MERGING in text else draft, window=window)
    merges = [text for judge, text in asked if not judge and MERGING in text]
    assert row["outcome"] == DONE and [text.count("concluded:") for text in merges] == [3, 3]
    row, _ = await through(say=lambda text: MERGED if MERGING in text else draft, window=window - 1)
    assert row["outcome"] == "merge_too_long_1"


async def test_the_hint_with_most_tokens_decides_what_fits(through, tokenizer):
    items = [Interaction("red " + "😀" * 40, "blue 東京") if i % 6 == 0 else Interaction(f"red thing {i}" + " thing" * 40, "blue") for i in range(18)]
    row, asked = await through(items=items, window=1164)
    assert row["outcome"] == DONE
    system = PromptSet().infer(items[:1])[:1]
    lengths = [count_tokens(tokenizer, [*system, {"role": "user", "content": text}]) for judge, text in asked if not judge]
    assert max(lengths) <= 1100 and min(text.count("Chosen:") for _, text in asked if "Chosen:" in text) < 6


@pytest.mark.parametrize(("served", "asked"), [(40960, 1164), (None, 1164), (1164, 16384)])
async def test_what_is_written_fits_training_however_long_the_window_of_the_server(fake_server, tokenizer, arguments, tmp_path, served, asked):
    items = [Interaction(f"red thing {i}" + " thing" * 90, "blue") for i in range(18)]
    async with fake_server(Models(tokenizer), max_model_len=served) as server:
        args = arguments(server.url, max_model_len=asked)
        record = UserRecord("u", tuple(items[:-1]), items[-1])
        write_jsonl(args.data, [user_row(record)])
        write_jsonl(args.scores, [{"id": record.id, "scores": [{"position": i, "p": 0.95} for i in range(18)], "dropped": 0}])
        assert (await synthesise(args))["outcomes"] == {DONE: 1}
        lengths = [count_tokens(tokenizer, body["messages"]) for body in server.bodies if not is_judge(body)]
    assert 900 < max(lengths) <= 1164 - 64
    prepared = prepare([str(tmp_path / "out" / "sft.jsonl")], tokenizer, tmp_path / "set", 1164)
    assert (prepared["rows"], prepared["dropped_too_long"]) == (2, 0)


async def test_a_teacher_that_is_served_here_gets_the_window(fake_server, tokenizer, model_folder, arguments, monkeypatch):
    started = []

    @contextlib.contextmanager
    def serve(model, *, arguments, **_):
        started.append((model, arguments))
        yield server.url

    monkeypatch.setattr("alignxplore.models.serve", serve)
    async with fake_server(Models(tokenizer), max_model_len=8192) as server:
        args = arguments(server.url, teacher=f"m={model_folder}", teacher_arguments="--tensor-parallel-size 4")
        assert (await synthesise(args))["outcomes"] == {DONE: 2}
    assert started == [(str(model_folder), ["--max-model-len", "16384", "--tensor-parallel-size", "4"])]


async def test_of_a_long_history_what_was_scored_is_cut_in_thirds(fake_server, tokenizer, arguments, tmp_path):
    items = tuple(Interaction(f"red thing {i}", f"blue thing {i}") for i in range(240))
    record = UserRecord("u", items[:-1], items[-1])
    async with fake_server(Models(tokenizer)) as server:
        args = arguments(server.url)
        write_jsonl(args.data, [user_row(record)])
        scores = [{"position": i, "p": 0.95} for i in range(222, 240)]  # as of the last of a long stream
        write_jsonl(args.scores, [{"id": record.id, "scores": scores, "dropped": 222}])
        counts = await synthesise(args)
    assert counts["outcomes"] == {DONE: 1} and counts["dropped_behaviours"] == 222
    rows = [json.loads(line)["prompt"] for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    assert rows == [PromptSet().infer(items[222:228]), PromptSet().infer(items[228:234], "Likes red.")]


async def test_failures_show_all_that_was_written_as_it_was(fake_server, tokenizer, arguments, tmp_path):
    def say(text: str) -> str:
        return "<joined_reasoning>no end" if MERGING in text else "Likes red." if re.search("Item [AB]: red thing 10\n", text) else GOOD

    async with fake_server(Models(tokenizer, say)) as server:
        assert (await synthesise(arguments(server.url)))["outcomes"] == {"merge_bad_format_1": 2}
    [note] = json.loads((tmp_path / "out" / "failures.jsonl").read_text().splitlines()[0])["rounds"]
    assert note["merge"]["text"] == "<joined_reasoning>no end" and note["merge"]["problem"] == "not one joined reasoning and one joined description"
    told = {draft["target"]["chosen"]: (draft["text"], draft["problem"], draft["verified"]) for draft in note["drafts"]}
    assert told.pop("red thing 10") == ("Likes red.", "not exactly one think block", False)
    assert len(told) == note["merge"]["of"] == 4 and set(told.values()) == {(GOOD, None, True)}
    assert "text" not in json.loads((tmp_path / "out" / "users.jsonl").read_text().splitlines()[0])["rounds"][0]["drafts"][0]


async def test_teacher_and_judge_have_keys_of_their_own(fake_server, tokenizer, model_folder, arguments, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "one")
    monkeypatch.setenv("JUDGE_KEY", "two")
    async with fake_server(Models(tokenizer)) as teacher, fake_server(Models(tokenizer)) as judge:
        args = arguments(teacher.url, judge=f"j={judge.url}#{model_folder}", api_key_env="TEACHER_KEY", judge_api_key_env="JUDGE_KEY")
        assert (await synthesise(args))["outcomes"] == {DONE: 2}
    keys = [{headers.get("Authorization") for headers in server.headers} for server in (teacher, judge)]
    assert keys == [{"Bearer one"}, {"Bearer two"}]
