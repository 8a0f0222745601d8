"""What a summary states, held against the choices that it was written from."""

import json
import math
import re

import pytest

from alignxplore.evaluation import faithfulness as faith
from alignxplore.evaluation.evidence import FILE, Links, read_evidence
from alignxplore.evaluation.known_items import claim
from alignxplore.evaluation.statements import same, statements_of, without
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord
from alignxplore.serving.endpoint import Endpoint
from tests.evaluation.made_up import written

SUMMARY = "Films: Comedy liked, Horror liked, War disliked."


def film(name: str, genres: str) -> str:
    return f"Title: {name} (1994), Genres: {genres}"


HISTORY = (
    Interaction(film("a", "Comedy"), film("b", "Horror")),
    Interaction(film("c", "Comedy"), film("d", "Drama")),
    Interaction(film("e", "Drama"), film("f", "War")),
    Interaction(film("g", "Drama"), film("h", "Drama")),
)


@pytest.mark.parametrize(
    ("summary", "texts"),
    [
        (SUMMARY, ["Films: Comedy liked.", "Films: Horror liked.", "Films: War disliked."]),
        ("Loves the sea. Hates crowds, always.\n", ["Loves the sea.", "Hates crowds, always."]),
        ("- loves tea\n2. hates X-rated films", ["loves tea", "hates X-rated films"]),
        ("In short: tea, coffee, and no milk.", ["In short: tea, coffee, and no milk."]),
        ("  \n ... ", []),
    ],
)
def test_statements_are_sentences_lines_and_parts_of_a_list(summary, texts):
    statements = statements_of(summary)
    assert [statement.text for statement in statements] == texts
    for statement in statements:  # where it stands is what it says, but for the word that leads a list
        assert statement.text.rstrip(".").endswith(summary[statement.start : statement.end].strip().rstrip("."))


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("Films: Comedy liked.", "Films: Comedy loved.", True),
        ("Films: Comedy liked.", "Films: Comedy hated.", False),
        ("Films: Comedy liked.", "Films: Drama liked.", False),
        ("Loves humour.", "Enjoys humour.", True),
        ("The user does not like war.", "Avoids war.", True),
        ("Prefers short direct answers.", "Likes answers that are short and direct.", True),
    ],
)
def test_statements_are_alike_by_what_they_are_about_and_their_sign(first, second, is_same):
    assert same(first, second) == same(second, first) == is_same


def test_a_summary_without_one_of_its_statements_reads_on():
    rests = [without(SUMMARY, statement) for statement in statements_of(SUMMARY)]
    assert rests[0] == "Films: Horror liked, War disliked." and rests[1] == "Films: Comedy liked, War disliked."
    assert rests[2] == "Films: Comedy liked, Horror liked."
    sentences = "Loves tea. Hates milk."
    assert [without(sentences, statement) for statement in statements_of(sentences)] == ["Hates milk.", "Loves tea."]
    assert without("Films: Comedy liked.", statements_of("Films: Comedy liked.")[0]) is None


def test_a_claim_is_about_one_attribute():
    assert claim("Films: pre-1970 loathed.") == ("pre-1970", -1)
    assert claim("Hates suspense.") == ("suspense", -1)
    assert claim("No strong preferences.") is None


def test_verdicts_weigh_the_choices_for_and_against():
    assert Links((1, 2), (3,)).verdict == "supported"
    assert Links((1,), (2, 3)).verdict == "contradicted"
    assert Links((1,), (3,)).verdict == Links().verdict == "not there"
    assert Links((1, 2), (3,)).without([1, 3]) == Links((2,), ())
    links = faith.links_of([1.0, -1.0, 0.2, 3.0], [0.0, 0.0, 0.0, 3.0], [0, 1, 2, 3], 0.5)
    assert links == Links((0,), (1,))
    assert faith.links_of([1.0, -1.0], [0.0, 0.0], [1], 0.5) == Links((), (1,))  # what was not seen is no evidence


@pytest.fixture
def run(tmp_path, benchmark_file):
    """faithfulness.py on one person's summary, with a downstream model that believes what it is told of genres."""

    def reads(body: dict) -> dict:
        prompt = body["messages"][1]["content"]
        signs = {name: 1 for name in re.findall(r"(\w+) liked", prompt)}
        signs |= {name: -1 for name in re.findall(r"(\w+) disliked", prompt)}
        a, b = re.findall(r"^Item [AB]: (.*)$", prompt, re.MULTILINE)
        lead = sum(sign * ((name in a) - (name in b)) for name, sign in signs.items()) + 0.7  # it likes A's place
        log_a, log_b = (math.log(0.99 / (1 + math.exp(way * lead))) for way in (-2, 2))
        ids = body.get("logprob_token_ids")
        assert ids and body["max_tokens"] == 1
        top = [{"token": f"token_id:{i}", "logprob": log} for i, log in zip(ids, (log_a, log_b))]
        message = {"role": "assistant", "content": ""}
        logs = {"content": [{"token": "x", "top_logprobs": top}]}
        return {"choices": [{"index": 0, "message": message, "logprobs": logs}]}

    records = [UserRecord(f"u{i}#1", HISTORY, Interaction(film("t", "Comedy"), film("s", "War"))) for i in (1, 2)]
    data = benchmark_file("personamem", records)
    records = faith.load_benchmarks([f"personamem={data}"])[0].records  # with the default query
    out = tmp_path / "eval"
    folder = out / "summaries" / "ours"
    folder.mkdir(parents=True)
    stage = {"text": "", "reasoning": "r", "summary": SUMMARY, "problem": None, "dropped": 0}
    bad = stage | {"summary": "", "problem": "no think block"}
    lines = [
        {"id": str(i), "status": "ok", "run": "r", "record": record.id, "user": record.user, "stages": [answer]}
        for i, (record, answer) in enumerate(zip(records, (stage, bad)))
    ]
    (folder / "personamem.full.s0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "personamem.full.s0.meta.json").write_text(json.dumps(written() | {"run": "r"}))
    return reads, data, out


def options(data, out, **values):
    words = {"judge": ["j=http://127.0.0.1:9/v1"], "data": [f"personamem={data}"], "out": str(out)}
    return faith.FaithfulnessOptions(**(words | {"known": "films", "max_error_rate": 1.0} | values))


@pytest.mark.parametrize("telling", ["alone", "in_place"])
async def test_each_statement_has_its_verdict_and_its_evidence(run, tokenizer, fake_server, telling):
    answer, data, out = run
    chosen = options(data, out, told=telling)
    (benchmark,), sets = faith.inputs(chosen)
    async with fake_server(answer) as server, Endpoint(server.url, name="j") as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        with faith.Journal(out / "judgements/j/evidence.jsonl") as journal:
            asking = faith.Asking(chosen, judge, "id", journal)
            await asking.ask(faith.units_of(benchmark, sets, chosen.told))
            (evidence,) = asking.evidence(benchmark, sets)
            count = len(server.bodies)
            await asking.ask(faith.units_of(benchmark, sets, chosen.told))
            assert len(server.bodies) == count  # nothing is asked twice
    comedy, horror, war = evidence.statements
    assert (comedy.links, comedy.links.verdict) == (Links((0, 1)), "supported")
    assert (horror.links, horror.links.verdict) == (Links((), (0,)), "contradicted")
    assert (war.links, war.links.verdict) == (Links((2,)), "supported")
    assert [x.true for x in evidence.statements] == [x.links for x in evidence.statements]
    # Of Comedy +2; Drama evens out at +1.
    assert (evidence.seen, evidence.strong, evidence.recalled) == ((0, 1, 2, 3), 1, 1)
    faith.write_evidence(out, [evidence])
    assert read_evidence(out) == [evidence]
    shares, truths = faith.report.tables([evidence])
    assert dict(zip(shares.head, shares.body[0]))["supported %"].startswith("66.67")
    assert dict(zip(truths.head, truths.body[0]))["choices: κ"].startswith("1.00")


def test_what_was_dropped_was_not_seen_and_what_lacks_an_alternative_gets_one(run):
    _, data, out = run
    (benchmark,), (summaries,) = faith.inputs(options(data, out))
    record = benchmark.records[0]
    rows = {"stages": [{"dropped": 1}, {"dropped": 1}]}
    stream = faith.SummarySet(summaries.folder, "ours", "personamem", "streaming", 0)
    assert faith.seen_of(benchmark, record, stream, rows) == (1, 3)
    bare = UserRecord("u9", tuple(Interaction(x.chosen) for x in HISTORY), record.target)
    interactions = faith.against(faith.Benchmark("b", "selection", (*benchmark.records, bare), data), bare)
    assert all(x.rejected is not None for x in interactions)


def test_what_cannot_be_said_is_refused(run, tmp_path):
    _, data, out = run
    with pytest.raises(ValueError, match="--known: unknown books"):
        options(data, out, known="books")
    with pytest.raises(RecordError, match=r"gen_preference\.py first"):
        faith.inputs(options(data, tmp_path))
    (tmp_path / FILE).write_text('{"policy": "x"}\n')
    with pytest.raises(RecordError, match=r"faithfulness\.py again"):
        read_evidence(tmp_path)


def test_check_counts_the_questions_and_asks_nobody(run):
    _, data, out = run
    assert "4 texts, 32 questions" in faith.faithfulness(options(data, out, check=True))
