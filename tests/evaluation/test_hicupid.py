"""HiCUPID's score: reading verdicts, both sides, what counts when an answer or a verdict is missing, overlap with the
reference."""

import json
import os
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from aiohttp import web

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.answers import NoReply
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.conditions import JudgeRequest
from alignxplore.evaluation.hicupid import case_of, parse_better, parse_satisfied, rate, write_answer
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate, evaluator_of, keys_of
from alignxplore.evaluation.text_overlap import bleu, rouge_l
from alignxplore.journal import Journal
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, write_json, write_jsonl
from alignxplore.serving.endpoint import Endpoint
from alignxplore.summarize import StageSummary, Summaries

PROFILE = {"age": 30, "gender": "woman", "personality": "curious", "occupation": "baker", "income_range": "middle"}
METADATA = {
    "persona": {
        "persona": {"category": "Travel", "entity": "New Zealand", "relation": "has not been to", "sentiment": "NEG"}
    },
    "profile": {"persona": {"category": "Food", "entity": "rye bread", "relation": "likes"}, "profile": PROFILE},
    "schedule": {"schedule": {"datetime": "2024-05-01 10:00", "event": "dentist"}},
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


def record_of(kind: str, user: str = "u") -> UserRecord:
    target = Interaction(f"a fitting reference for {user}", f"a general answer for {user}", f"What about {kind}?")
    return UserRecord(
        f"{user}#{kind}",
        (Interaction("yes", None, "hello"),),
        target,
        json.dumps({"type": kind, "metadata": METADATA[kind]}),
    )


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("1. Personal: A.\n2. Sound: B.\nBetter Response: B", "B"),
        ("Better Response: B, because it adds a tie to the user's taste", "B"),
        ("**Better Response:** A", "A"),
        ("Better Response: **Tie**", "tie"),
        ("better response: a", "A"),
        ("Better Response: Answer B.", "B"),
        ("Better Response: a tie", "tie"),
        ("Better Response: A\nOn reflection:\nBetter Response: B", "B"),
        ("- Better Response: [A]", "A"),
        ("Better Response: Answer (b)", "B"),
        ("Better Response: **Answer [A]**", "A"),
        ("Better Response: Response: B.", "B"),
        ("Better Response: (A) because it names the sea", "A"),
        ("Better Response: A is the warmer one", "A"),
        ("Better Response: Answer A's", "A"),
        ("Better Response: A - it is warmer", "A"),
        ("3. Better Response: B", "B"),
        ("3) **Better Response:** tie", "tie"),
        ("**3. Better Response**: A", "A"),
        ("* 3. Better Response: A", "A"),
        ("3 reasons. Better Response: A", None),
        ("Better Response: A good answer is B", None),
        ("Better Response: a matter of taste", None),
        ("Better Response: Answer a question", None),
        ("I say that the Better Response: A", None),
        ("Better Response: both are good, A a little more", None),
        ("Better Response: A and B are alike", None),
        ("Better Response: A/B", None),
        ("Better Response: Better", None),
        ("Better Response:", None),
        ("A", None),
        ("", None),
    ],
)
def test_verdicts(text, verdict):
    assert parse_better(text) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It does.\nSatisfaction: YES", True),
        ("Satisfaction: no, it forgets the dentist. Yes.", False),
        ("**Satisfaction**: Yes", True),
        ("2. Satisfaction: NO", False),
        ("Satisfaction: nothing", None),
        ("Satisfaction: yesterday", None),
        ("YES", None),
        ("", None),
    ],
)
def test_satisfaction(text, verdict):
    assert parse_satisfied(text) is verdict


def test_what_the_evaluator_is_told():
    assert case_of(record_of("persona")).facts == ("The user has not been to New Zealand.",)
    assert case_of(record_of("profile")).facts == (
        "The user likes rye bread.",
        "age: 30",
        "gender: woman",
        "personality: curious",
        "occupation: baker",
        "income range: middle",
    )
    assert case_of(record_of("schedule")).facts == ("2024-05-01 10:00: dentist",)


async def test_a_wording_of_ones_own_gets_the_metadata_as_they_are(fake_server, say, tmp_path):
    """For instance one that shows the profile before the persona, without full stops."""
    template = (
        "#--- user\n{{ kind }}{% for x in profile or {} %}|{{ x }}={{ profile[x] }}{% endfor %}"
        "{% if persona %}|{{ persona.relation }} {{ persona.entity }}{% endif %}"
        "{% if schedule %}|{{ schedule.event }}{% endif %}"
    )
    for purpose in ("hicupid_compare", "hicupid_schedule"):
        (tmp_path / f"{purpose}.jinja").write_text(template)
    async with (
        fake_server(lambda body: say("Better Response: A")) as server,
        Endpoint(server.url, patience=0.02) as endpoint,
    ):
        for kind in METADATA:
            await rate(endpoint, PromptSet(tmp_path), record_of(kind), "mine")
    profile = "profile|age=30|gender=woman|personality=curious|occupation=baker|income_range=middle|likes rye bread"
    persona = "persona|has not been to New Zealand"
    assert [body["messages"][0]["content"] for body in server.bodies] == [
        persona,
        persona,
        profile,
        profile,
        "schedule|dentist",
    ]


@pytest.mark.parametrize(
    "persona", [None, "a baker", '{"type": "persona"}', '{"type": "profile", "metadata": {"persona": null}}']
)
def test_a_row_without_its_metadata_is_named(persona):
    record = UserRecord("u", (Interaction("a"),), Interaction("b", "c", "d"), persona, "x.jsonl:7")
    with pytest.raises(
        RecordError, match=r"x\.jsonl:7: field 'ground_truth_persona': no HiCUPID metadata here .*build the file"
    ):
        case_of(record)


def test_the_judged_example_of_the_readme():
    """Its evaluation names B, its label says that the model's answer was A: lost, score 0."""
    if not os.environ.get("REAL_SAMPLES_DIR"):
        pytest.skip("REAL_SAMPLES_DIR is not set: no real sample files on this machine")
    example = json.loads((Path(os.environ["REAL_SAMPLES_DIR"]) / "hicupid" / "readme_example.json").read_text())
    assert example["label"] == "A" and parse_better(example["evaluation"]) == "B" and example["score"] == 0
    target = Interaction(example["personalized_answer"], "general", example["question"])
    record = UserRecord("u", (), target, json.dumps({"type": example["type"], "metadata": example["metadata"]}))
    assert case_of(record).facts == ("The user has not been to New Zealand.",)


def sides(body):
    """(answer A, answer B) of a comparison."""
    text = body["messages"][-1]["content"]
    return text.split("Answer A: ")[1].split("\nAnswer B: ")[0], text.split("\nAnswer B: ")[1].split("\n")[0]


@pytest.mark.parametrize(
    ("kind", "verdict", "score", "unparsed"),
    [
        ("persona", lambda a, b: "A" if a == "mine" else "B", 1.0, 0),
        ("profile", lambda a, b: "B" if a == "mine" else "A", 0.0, 0),
        ("persona", lambda a, b: "A", 0.5, 0),  # it prefers a side, not an answer
        ("persona", lambda a, b: "Tie" if a == "mine" else "B", 0.75, 0),
        ("persona", lambda a, b: "neither" if a == "mine" else "B", 0.75, 1),
        ("profile", lambda a, b: "neither", 0.5, 2),
    ],
)
async def test_both_sides_are_asked_and_averaged(fake_server, say, kind, verdict, score, unparsed):
    async with (
        fake_server(lambda body: say(f"A is warm, B is cold.\nBetter Response: {verdict(*sides(body))}")) as server,
        Endpoint(server.url, patience=0.02) as endpoint,
    ):
        row = await rate(endpoint, PromptSet(), record_of(kind), "mine")
    assert (row.status, row.score, row.unparsed) == ("ok", score, unparsed)
    assert sorted(map(sides, server.bodies)) == [
        ("a fitting reference for u", "mine"),
        ("mine", "a fitting reference for u"),
    ]
    assert all(
        (body["temperature"], body["max_tokens"]) == (0, 512) and "New Zealand" in str(body) or kind == "profile"
        for body in server.bodies
    )


@pytest.mark.parametrize(
    ("text", "score", "unparsed"), [("Satisfaction: YES", 1.0, 0), ("Satisfaction: NO", 0.0, 0), ("Maybe.", 0.0, 1)]
)
async def test_a_schedule_is_satisfied_or_not(fake_server, say, text, score, unparsed):
    async with fake_server(lambda body: say(text)) as server, Endpoint(server.url, patience=0.02) as endpoint:
        row = await rate(endpoint, PromptSet(), record_of("schedule"), "mine")
    assert (row.score, row.unparsed, len(server.bodies)) == (score, unparsed, 1) and "dentist" in str(server.bodies)


@pytest.mark.parametrize(("status", "outcome"), [(500, "transport_error"), (400, "request_error")])
async def test_a_failed_evaluation_has_no_score(fake_server, status, outcome):
    async with (
        fake_server(lambda body: web.Response(status=status, text="no")) as server,
        Endpoint(server.url, patience=0.02) as endpoint,
    ):
        row = await rate(endpoint, PromptSet(), record_of("persona"), "mine")
    assert row == NoReply(outcome, row.error)


@pytest.fixture
def run(fake_server, say, tokenizer, tmp_path):
    """`run(downstream(prompt), rater(prompt))`: the rows of results of one policy's summaries of six questions, and
    the requests."""
    records = [record_of(kind, user) for user in "uv" for kind in METADATA]
    data, out = tmp_path / "hicupid_upi.jsonl", tmp_path / "out"
    write_jsonl(data, map(user_row, records))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    target = SummarySet(out, "ours", "hicupid", "full", 0)
    write_json(
        target.meta_path,
        {"run": "r", "policy": "ours", "identity": "x", "sampling": {"form": "think"}, "prompt_hash": "0"},
    )
    with Journal(target.journal_path) as journal:
        for i, record in enumerate(records):
            stage = StageSummary(
                "text",
                "",
                "" if i == 0 else f"Likes {record.user}.",
                "unfinished reasoning" if i == 0 else None,
                0,
                1,
                1,
            )
            journal.append(
                record.id, {"run": "r", "record": record.id, "user": record.user} | Summaries((stage,)).row()
            )

    async def evaluation(downstream, rater, **options):
        def reply(function):
            return lambda body: (
                say(text) if isinstance(text := function(body["messages"][-1]["content"]), str) else text
            )

        async with (
            fake_server(reply(downstream), model="reader") as reader_server,
            fake_server(reply(rater), model="rater") as rater_server,
        ):
            rows = await evaluate(
                EvaluationArguments(
                    judge=[f"reader={reader_server.url}#{tmp_path / 'tokenizer'}"],
                    judge_format=["r1"],
                    data=[str(data)],
                    out=str(out),
                    **{
                        "evaluator": f"rater={rater_server.url}",
                        "protocol": ["paper"],
                        "answer_tokens": 64,
                        "max_error_rate": 1.0,
                    }
                    | options,
                )
            )
            return {(row.policy, row.setting): row.row() for row in rows}, reader_server.bodies, rater_server.bodies

    return evaluation


def answer_well(prompt):
    if "Item A" in prompt:
        return 'x</think>{"selection": "Item A"}'
    return "hm</think>" + ("a fitting answer" if "Likes" in prompt or "hello" in prompt else "any answer")


def prefer_fitting(prompt):
    if "Satisfaction" in prompt:
        return "Satisfaction: " + ("YES" if "fitting" in prompt else "NO")
    a = prompt.split("Answer A: ")[1].split("\nAnswer B: ")[0]
    fits = "a fitting answer" in prompt
    return "Better Response: " + ("A" if (a in ("a fitting answer", "any answer")) == fits else "B")


async def test_answers_are_written_and_rated_in_one_run(run):
    rows, answers, ratings = await run(answer_well, prefer_fitting)
    row = rows["ours", "full"]
    assert (row["protocol"], row["judge"], row["n"], row["accuracy"]) == (
        "paper",
        "reader",
        6,
        pytest.approx(5 / 6),
    )
    assert row["bad_format"] == pytest.approx(1 / 6) and row["accuracy_well_formed"] == 1 and row["coverage"] == 1
    # what the unfinished reasoning holds is answered as it is, and loses
    assert (row["win"], row["lose"]) == pytest.approx((5 / 6, 1 / 6))
    references = [record_of(kind, user).target.chosen for user in "uv" for kind in METADATA]
    pairs = list(zip(["any answer", *["a fitting answer"] * 5], references, strict=True))
    assert row["bleu"] == pytest.approx(fmean(bleu(*pair) for pair in pairs))
    assert row["rouge_l"] == pytest.approx(fmean(rouge_l(*pair) for pair in pairs)) != row["bleu"]
    assert rows["no summary", "none"]["accuracy"] == 0 and rows["reader", "direct"]["accuracy"] == 1
    assert [rows[key]["truncated"] for key in (("no summary", "none"), ("reader", "direct"), ("ours", "full"))] == [
        None,
        0,
        0,
    ]
    assert not any(
        policy in ("longer", "popularity") for policy, _ in rows
    )  # nothing is chosen here, so no cue can choose
    assert any("What about" in str(body) for body in answers) and ratings
    same_rows, more_answers, more_ratings = await run(answer_well, prefer_fitting)
    assert (
        same_rows == rows and not any("asks now" in str(body) for body in more_answers) and not more_ratings
    )  # all of it is journalled


async def test_a_downstream_model_without_an_answer_has_lost(run):
    rows, _, ratings = await run(
        lambda prompt: answer_well(prompt) if "Item A" in prompt else "never closes", prefer_fitting
    )
    row = rows["ours", "full"]
    assert (
        row["accuracy"] == 0 and row["parse_failures"] == pytest.approx(5 / 6) and row["coverage"] == 1 and not ratings
    )
    assert rows["reader", "direct"]["truncated"] == 0, "what it was shown is known, whatever it said"


async def test_an_answer_that_could_not_be_rated_lowers_coverage(run, monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 1e6)  # no repeats
    rows, *_ = await run(answer_well, lambda prompt: web.Response(status=400, text="no"))
    assert rows["no summary", "none"]["coverage"] == rows["ours", "full"]["coverage"] == 0
    rows, *_ = await run(answer_well, lambda prompt: web.Response(status=500), direct=False)
    assert rows["no summary", "none"]["accuracy"] is None


def test_no_endpoint_gets_the_key_of_another_one():
    values = {
        "judge": ["a=http://one/v1", "b=http://two/v1"],
        "data": ["x"],
        "out": "o",
        "evaluator": "rater=http://three/v1",
    }
    assert keys_of(EvaluationArguments(**values, api_key_env=["rater=ITS_KEY", "b=OTHER"])) == {
        "a": "",
        "b": "OTHER",
        "rater": "ITS_KEY",
    }
    assert keys_of(EvaluationArguments(**values, api_key_env=["KEY"])) == dict.fromkeys(("a", "b", "rater"), "KEY")
    with pytest.raises(ValueError, match="api_key_env: .* single ones of a, b, rater"):
        keys_of(EvaluationArguments(**values, api_key_env=["c=KEY"]))
    assert evaluator_of(EvaluationArguments(**values | {"evaluator": "none"})) is None
    assert evaluator_of(EvaluationArguments(judge=[], data=[], out="o")).target == "12kimih/Llama-3.2-3B-HiCUPID"


async def test_without_an_evaluator_the_score_is_missing_not_another_one(run):
    rows, answers, _ = await run(answer_well, prefer_fitting, evaluator="none")
    assert not rows and not any("asks now" in str(body) for body in answers)
    rows, answers, _ = await run(answer_well, prefer_fitting, evaluator="none", protocol=["choice"])
    assert (
        rows["ours", "full"]["protocol"] == "choice"
    )  # there it is a choice between the personal and the general answer


@pytest.mark.parametrize("length, status", [(200_000, "too_long"), (20, "request_error")])
async def test_a_question_that_no_window_takes_is_final_and_another_refusal_is_not(
    fake_server, tokenizer, length, status
):
    record = replace(record_of("profile"), target=Interaction("a", "b", "x" * length))
    async with (
        fake_server(lambda body: web.Response(status=400, text="no")) as server,
        Endpoint(server.url) as endpoint,
    ):
        judge = Judge(endpoint, tokenizer, PromptSet())
        row = await write_answer(judge, JudgeRequest(record), 4096)
    assert (row.status, row.error) == (status, "HTTP 400: no")
