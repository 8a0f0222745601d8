"""Synthesis: users pass or leave at the right step, the funnel adds up, and a stopped run asks nothing twice."""

import json
import re

import pytest

from alignxplore import datasets
from alignxplore.benchmark_files import user_row
from alignxplore.command import run
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, write_jsonl
from alignxplore.synthesis.funnel import STEPS, Funnel, LiveFunnel, users_left
from alignxplore.synthesis.outputs import EXAMPLES, write_outputs
from alignxplore.synthesis.pipeline import SynthesisOptions, synthesise, synthesize
from alignxplore.synthesis.rounds import DONE, Thresholds, pick_targets
from alignxplore.synthesis.streams import read_behaviours
from tests.synthesis.teachers import GOOD, ITEMS, MERGED, MERGING, Models, good, is_judge


async def test_a_user_who_passes_gives_two_rows_with_the_plain_prompt(through):
    row, requests = await through()
    assert row["outcome"] == DONE and len(row["rows"]) == 2
    first, second = row["rows"]
    assert first["prompt"] == PromptSet().infer(ITEMS[:6]) and second["prompt"] == PromptSet().infer(
        ITEMS[6:12], "Likes red."
    )
    assert first["completion"] == [{"role": "assistant", "content": GOOD}] and first["template"] == PromptSet().hash(
        "infer"
    )
    hinted = [text for judge, text in requests if not judge and "next have to choose" in text]
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
        (
            "merge_bad_format_1",
            {
                "say": lambda text: (
                    MERGED.replace("chooses", "Both annotators say: chooses") if MERGING in text else GOOD
                )
            },
        ),
        ("merged_too_poor_1", {"say": lambda text: MERGED.replace("red.", "blue.") if MERGING in text else GOOD}),
        (
            "too_few_verified_2",
            {"say": lambda text: good(text) if "newer choices" not in text else GOOD.replace("red.", "blue.")},
        ),
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
    assert (
        row["outcome"] == DONE
        and [r["completion"] for r in row["rows"]] == [[{"role": "assistant", "content": GOOD}]] * 2
    )


async def test_a_merge_is_asked_for_without_thinking(fake_server, tokenizer, arguments):
    async with fake_server(Models(tokenizer, good)) as server:
        assert (await synthesise(arguments(server.url)))["outcomes"] == {DONE: 2}
    for body in server.bodies:
        thinking = not is_judge(body) and MERGING not in body["messages"][-1]["content"]
        assert body["chat_template_kwargs"] == {"enable_thinking": thinking}


async def test_an_interrupted_user_asks_nothing_twice(through):
    row, requests = await through()
    again, requests_again = await through()
    assert again == row and requests and not requests_again


def finished(outcome: str, number: int) -> dict:
    """A user's row in the journal; of those who are done each gave two SFT rows."""
    reached = 2 if outcome == DONE or outcome.endswith("_2") else 1
    notes = [{"round": i + 1, "targets": 5, "well_formed": 5, "verified": 4} for i in range(reached)]
    return {
        "uid": f"{outcome} {number}",
        "outcome": outcome,
        "rounds": notes,
        "rows": [{}, {}] if outcome == DONE else [],
        "dropped_behaviours": 2,
    }


def test_the_funnel_adds_up_whatever_the_outcomes(tmp_path, capsys, monkeypatch):
    outcomes = [outcome for outcomes_of_step in STEPS.values() for outcome in outcomes_of_step] + [DONE]
    rows = [finished(outcome, i) for place, outcome in enumerate(outcomes) for i in range(3 * place + 1)]
    counts = write_outputs(tmp_path, iter(rows), {})
    assert counts["users"] == len(rows) == sum(counts["outcomes"].values())
    assert counts["dropped_behaviours"] == 2 * len(rows)
    before = counts["users"]
    for step, remainder in counts["left"].items():
        assert before - remainder == sum(counts["outcomes"][outcome] for outcome in STEPS[step]) > 0, step
        before = remainder
    assert before == counts["outcomes"][DONE] and counts["sft_rows"] == 2 * before
    failures = [json.loads(line)["outcome"] for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert {outcome: failures.count(outcome) for outcome in failures} == {
        outcome: min(EXAMPLES, counts["outcomes"][outcome]) for outcome in outcomes if outcome != DONE
    }
    monkeypatch.setattr("alignxplore.synthesis.funnel.REPORT_SECONDS", 0)
    live = LiveFunnel(len(rows), rows[:10])
    for row in rows[10:]:
        live.add(row)
    output = capsys.readouterr().out.splitlines()
    assert len(output) == len(rows) - 10 and output[-1].startswith(
        f"[funnel] {len(rows)} of {len(rows)} users | answered "
    )
    assert output[-1].endswith(f"> merged verified {before}") and "| round 2: enough targets" in output[-1]
    with pytest.raises(AssertionError, match="without a place in the funnel: {'lost'}"):
        users_left(live.outcomes + live.outcomes.__class__(lost=1))


def test_targets_are_foreseeable_pairs_drawn_by_content():
    items = [*ITEMS[:10], Interaction("alone")]
    places = pick_targets(range(4, 11), dict.fromkeys(range(11), 0.95) | {5: 0.9}, items, "u", Thresholds())
    assert len(places) == 5 and 5 not in places and 10 not in places and places == sorted(places)
    assert places == pick_targets(range(4, 11), dict.fromkeys(range(11), 0.95) | {5: 0.9}, items, "u", Thresholds())


async def test_the_command_writes_rows_funnel_and_failures_and_is_not_done_twice(
    fake_server, tokenizer, model_folder, tmp_path
):
    records = [UserRecord(f"u{n}", tuple(ITEMS[:17] if n % 3 else ITEMS[:5]), ITEMS[17]) for n in range(9)]
    users, scores = tmp_path / "mind_upi.jsonl", tmp_path / "scores.jsonl"
    write_jsonl(users, map(user_row, records))
    write_jsonl(
        scores,
        (
            {"id": r.id, "scores": [{"position": i, "p": 0.95} for i in range(18)], "dropped": 0}
            for r in read_behaviours(users, None)
        ),
    )
    models = Models(tokenizer)
    async with fake_server(models) as server:
        target = f"m={server.url}#{model_folder}"
        out = tmp_path / "out"
        args = SynthesisOptions(
            data=str(users), scores=str(scores), out=str(out), teacher=target, judge=target, max_tokens=64
        )
        counts = await synthesise(args)
        assert (
            counts["users"] == 9
            and counts["outcomes"] == {"history_too_short": 3, DONE: 6}
            and counts["sft_rows"] == 12
        )
        first = (out / "sft.jsonl").read_text()
        assert (
            f"Request: {datasets.get('mind').default_query}"
            in json.loads(first.splitlines()[0])["prompt"][1]["content"]
        )
        request_count = len(models.asked)
        lines = (out / "users.jsonl").read_text().splitlines(keepends=True)
        (out / "users.jsonl").write_text("".join(lines[:3]) + lines[3][:30])  # killed while a line was written
        args.judge = None  # the teacher itself
        assert await synthesise(args) == counts and (out / "sft.jsonl").read_text() == first
        assert len(models.asked) - request_count <= 8, "only the judge's own check may be asked again"
    assert len((out / "failures.jsonl").read_text().splitlines()) == 3
    assert json.loads((out / "funnel.json").read_text()) == counts and (out / "funnel.png").stat().st_size > 1000
    write_jsonl(users, map(user_row, [*records, UserRecord("u9", ITEMS[:5], ITEMS[17])]))
    with pytest.raises(
        RecordError, match=r"mind_upi.jsonl:10: no scores in .*scores.jsonl; run signal_model.py score"
    ):
        await synthesise(args)


def user_with_scores(folder) -> dict[str, str]:
    """Options that name one user and scores of it."""
    record = UserRecord("u", tuple(ITEMS[:17]), ITEMS[17])
    write_jsonl(folder / "users.jsonl", [user_row(record)])
    scores = [{"position": place, "p": 0.95} for place in range(18)]
    write_jsonl(folder / "scores.jsonl", [{"id": record.id, "scores": scores, "dropped": 0}])
    return {name: str(folder / f"{name}.jsonl") for name in ("users", "scores")}


def test_an_address_without_a_scheme_is_one_sentence(tmp_path):
    files = user_with_scores(tmp_path)
    words = ["--data", files["users"], "--scores", files["scores"], "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match=": '127.0.0.1:8000/v1' has no scheme"):
        run(synthesize, SynthesisOptions, None, [*words, "--teacher", "t=127.0.0.1:8000/v1"])


def test_check_looks_at_users_and_scores_asks_nobody_and_writes_nothing(tmp_path, capsys):
    files, before = user_with_scores(tmp_path), set(tmp_path.iterdir())
    words = ["--data", files["users"], "--scores", files["scores"], "--out", str(tmp_path / "out"), "--check"]
    run(synthesize, SynthesisOptions, None, [*words, "--teacher", "t=http://127.0.0.1:1/v1"])
    output = capsys.readouterr().out
    assert (
        "1 users, 1 of them can give SFT rows" in output
        and "teacher and judge t: endpoint http://127.0.0.1:1/v1" in output
    )
    assert "out: 0 of these users are finished" in output and set(tmp_path.iterdir()) == before
    write_jsonl(tmp_path / "scores.jsonl", [])
    with pytest.raises(SystemExit, match="no scores in "):
        run(synthesize, SynthesisOptions, None, words)
