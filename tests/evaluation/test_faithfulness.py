"""What a summary states, held against the choices that it was written from."""

import json
import math
import re
from dataclasses import replace

import pytest

from alignxplore.evaluation import faithfulness as faith
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.evidence import FILE, Links, read_evidence
from alignxplore.evaluation.generation import generate
from alignxplore.evaluation.known_items import claim
from alignxplore.evaluation.statements import same, statements_of, without
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, write_json, write_jsonl
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
    assert faith.links_of([1.0, -1.0], [0.0, 0.0], [3, 7], 0.5) == Links((3,), (7,))  # places in the whole history


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


def options(data, out, name="personamem", **values):
    words = {"judge": ["j=http://127.0.0.1:9/v1"], "data": [f"{name}={data}"], "out": str(out)}
    return faith.FaithfulnessOptions(**(words | {"known": "films", "max_error_rate": 1.0} | values))


@pytest.mark.parametrize("telling", ["alone", "in_place"])
async def test_each_statement_has_its_verdict_and_its_evidence(run, tokenizer, fake_server, telling):
    answer, data, out = run
    chosen = options(data, out, told=telling)
    _, summaries = faith.inputs(chosen)
    async with fake_server(answer) as server, Endpoint(server.url, name="j") as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        with faith.Journal(out / "judgements/j/evidence.jsonl") as journal:
            asking = faith.Asking(chosen, judge, "id", journal)
            await asking.ask(faith.units_of(summaries, chosen.told))
            (evidence,) = asking.evidence(summaries)
            count = len(server.bodies)
            await asking.ask(faith.units_of(summaries, chosen.told))
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


def bare(user: str) -> UserRecord:
    """Somebody of whom it is not known what was passed over."""
    history = tuple(Interaction(f"item {place} of {user}") for place in range(4))
    return UserRecord(user, history, Interaction("last", "other"))


@pytest.fixture
def bare_run(tmp_path, benchmark_file):
    """Units of the summaries of persons without alternatives, by the record's id: `bare_run(users, limit)`."""
    users = [f"u{number}" for number in range(30)]
    out = tmp_path / "eval"
    folder = out / "summaries" / "ours"
    stage = {"text": "", "reasoning": "r", "summary": SUMMARY, "problem": None, "dropped": 0}

    def units(names: list[str], limit: int = 0) -> dict[str, list[faith.Unit]]:
        data = benchmark_file("personamem", [bare(name) for name in names])
        records = faith.load_benchmarks([f"personamem={data}"])[0].records
        head = {"status": "ok", "run": "r"}
        rows = [
            head | {"id": record.id, "record": record.id, "user": record.user, "stages": [stage]} for record in records
        ]
        write_jsonl(folder / "personamem.full.s0.jsonl", rows)
        write_json(folder / "personamem.full.s0.meta.json", written() | {"run": "r"})
        _, summaries = faith.inputs(options(data, out, limit=limit))
        by_record: dict[str, list[faith.Unit]] = {}
        for unit in faith.units_of(summaries, faith.ALONE):
            by_record.setdefault(unit.record.id, []).append(unit)
        return by_record

    units.users = users
    return units


def test_what_lacks_an_alternative_gets_one_whatever_the_order_and_the_limit(bare_run, monkeypatch):
    units = bare_run(bare_run.users)
    assert all(x.rejected for entries in units.values() for unit in entries for x in unit.history)
    assert units == bare_run(bare_run.users[::-1])
    few = bare_run(bare_run.users, limit=5)
    assert len(few) == 5 and all(units[record] == entries for record, entries in few.items())
    more = bare_run(["u30", *bare_run.users])
    assert sum(units[record] != more[record] for record in units) < 10
    monkeypatch.setattr(faith, "POOL", 10)
    assert bare_run(bare_run.users, limit=20).items() <= bare_run(bare_run.users).items()


def test_where_nobody_else_is_there_nothing_stands_against_a_choice(bare_run):
    ((unit, *_),) = bare_run(["u1"]).values()
    assert unit.history == tuple(replace(x, query=unit.history[0].query) for x in bare("u1").history)


def test_summaries_of_another_task_are_refused(run):
    _, data, out = run
    meta = out / "summaries/ours/personamem.full.s0.meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"task": "recommendation"}))
    with pytest.raises(RecordError, match="written as of a recommendation task"):
        faith.inputs(options(data, out))


@pytest.mark.parametrize("fit", ["ours", "published"])
@pytest.mark.parametrize("setting", ["full", "streaming"])
@pytest.mark.parametrize("name", ["movielens", "personamem"])
async def test_a_summary_is_held_against_what_its_policy_was_shown(
    fit, setting, name, fake_server, say, tokenizer, tmp_path, record, benchmark_file
):
    """Too long a history, by whichever fit: what was sent is what the summary is held against, and no more."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    data = benchmark_file(name, [record("u", 40)])
    async with fake_server(lambda body: say("<think>\nr\n</think>\n\nlikes films"), max_model_len=500) as server:
        model = [f"ours={server.url}#{tmp_path / 'tokenizer'}"]
        out = str(tmp_path / "out")
        await generate(
            GenerationArguments(model=model, data=[str(data)], out=out, settings=[setting], fit=fit, max_tokens=64)
        )
    prompts = "".join(body["messages"][-1]["content"] for body in server.bodies)
    _, (summary,) = faith.inputs(options(data, out, name))
    sent_places = [place for place in range(40) if f"\nChosen: film u {place}\n" in prompts]
    assert 0 < len(sent_places) < 26 and list(summary.places) == sent_places
    assert summary.interactions == tuple(summary.record.history[place] for place in sent_places)


def test_what_cannot_be_said_is_refused(run, tmp_path):
    _, data, out = run
    with pytest.raises(ValueError, match="--known: unknown books"):
        options(data, out, known="books")
    with pytest.raises(ValueError, match=r"--known: unknown ''.* films"):
        options(data, out, known="")
    with pytest.raises(RecordError, match=r"gen_preference\.py first"):
        faith.inputs(options(data, tmp_path))
    (tmp_path / FILE).write_text('{"policy": "x"}\n')
    with pytest.raises(RecordError, match=r"faithfulness\.py again"):
        read_evidence(tmp_path)


@pytest.mark.parametrize("lift", [0, -0.1, math.nan, math.inf])
def test_a_lift_by_which_everything_or_nothing_is_evidence_is_refused(run, lift):
    _, data, out = run
    with pytest.raises(ValueError, match=f"--lift {lift}: a number above 0"):
        options(data, out, lift=lift)


def test_check_counts_the_questions_and_asks_nobody(run):
    _, data, out = run
    assert "4 texts, 32 questions" in faith.faithfulness(options(data, out, check=True))
    with pytest.raises(ValueError, match="nope"):
        faith.faithfulness(options(data, out, check=True, prompt_set="nope"))
    for check in (True, False):
        with pytest.raises(
            ValueError, match="--judge: 'none' is what the tables call a baseline; give the model another"
        ):
            faith.faithfulness(options(data, out, check=check, judge=["none=http://127.0.0.1:9/v1"]))
