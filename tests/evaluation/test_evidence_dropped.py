"""A statement whose evidence is dropped must be gone; the others stay."""

import json
from dataclasses import replace

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation import evidence_dropped as forget
from alignxplore.evaluation.benchmarks import load_benchmarks, shown_history
from alignxplore.evaluation.evidence import Evidence, LinkedStatement, Links, read_evidence, write_evidence
from alignxplore.records import Interaction, RecordError, UserRecord, read_jsonl, write_jsonl
from tests.evaluation.made_up import written

HISTORY = tuple(Interaction(f"item {i}", f"other {i}") for i in range(9))  # of which the first 6 are shown
TOLD = (
    LinkedStatement("Loves tea.", 0, 10, Links((0, 1), (2,))),
    LinkedStatement("Loves coffee.", 11, 24, Links((1, 3, 4), ())),
    LinkedStatement("Hates milk.", 25, 36, Links((), (5,))),
)


@pytest.fixture
def run(tmp_path, benchmark_file):
    records = [UserRecord(f"u{i}", HISTORY, Interaction("a", "b")) for i in range(4)]
    data = benchmark_file("movielens", records)
    (benchmark,) = load_benchmarks([f"movielens={data}"])
    about = ("ours", "full", "movielens", 0)
    evidence = [Evidence(*about, record.id, record.user, "j", tuple(range(6)), TOLD) for record in benchmark.records]
    write_evidence(tmp_path, evidence)
    return forget.ForgettingOptions(
        data=f"movielens={data}", evidence=tmp_path, policy="ours", out=tmp_path / "forgetting"
    )


def derive(options, summary_of) -> None:
    """The summaries of the copies: `told(history)`."""
    folder = options.out / "summaries/ours"
    folder.mkdir(parents=True, exist_ok=True)
    for benchmark in load_benchmarks([str(options.out / "data")]):
        lines = []
        for record in benchmark.records:
            summary = summary_of([x.chosen for x in shown_history(benchmark, record)])
            stage = {"summary": summary or "", "problem": None if summary else "no think block"}
            row = {"id": record.id, "status": "ok", "run": "r", "record": record.id, "user": record.user}
            lines.append(json.dumps(row | {"stages": [stage]}) + "\n")
        with (folder / f"{benchmark.name}.full.s0.jsonl").open("a") as journal:
            journal.writelines(lines)
        (folder / f"{benchmark.name}.full.s0.meta.json").write_text(json.dumps(written() | {"run": "r"}))


def test_only_a_supported_statement_with_enough_other_choices_is_drawn():
    evidence = Evidence("ours", "full", "b", 0, "r", "u", "j", tuple(range(6)), TOLD)
    statements = {forget.planned(evidence, seed).statement for seed in range(20)}
    assert statements == {"Loves tea.", "Loves coffee."}
    for plan in (forget.planned(evidence, seed) for seed in range(20)):
        statement = next(statement for statement in TOLD if statement.text == plan.statement)
        assert plan.dropped == statement.links.supports and len(plan.other) == len(plan.dropped)
        assert not set(plan.other) & {*statement.links.supports, *statement.links.contradicts}
        # Of tea (1, 3, 4) loses one and stays; of coffee (0, 1) against (2) loses one and evens out.
        assert plan.stays == (("Loves coffee.",) if plan.statement == "Loves tea." else ())
    few = replace(evidence, seen=(0, 1, 2, 4))  # nothing that says nothing of coffee but 2, nothing of tea but 4
    assert forget.planned(few, 0) is None
    contradiction = Evidence(
        "o", "full", "b", 0, "r", "u", "j", (0,), (LinkedStatement("Loves tea.", 0, 9, Links((0,)), Links()),)
    )
    assert forget.planned(contradiction, 0) is None  # what is known of the items counts more than the downstream model


def test_the_copies_show_what_is_left_and_nothing_else(run):
    message = forget.forgetting(run)
    assert "4 users" in message and "gen_preference.py --model ours=" in message and "--prompt_set" in message
    plan = {row["user"]: row for row in map(json.loads, (run.out / "forgotten.jsonl").read_text().splitlines())}
    whole_copy, forgotten_copy, others = (
        load_benchmarks([str(run.out / "data")], [f"{name}~movielens"])[0]
        for name in ("whole", "forgotten", "others_dropped")
    )
    for benchmark, key in ((whole_copy, None), (forgotten_copy, "dropped"), (others, "other")):
        for record in benchmark.records:
            texts = [f"item {i}" for i in range(6) if key is None or i not in plan[record.user][key]]
            assert [x.chosen for x in shown_history(benchmark, record)] == texts


def test_the_copies_hold_what_the_summary_was_written_from(run):
    """Of a history that was halved and then cut into thirds, or whose oldest interactions did not fit."""
    evidence = read_evidence(run.evidence)
    places, statements = (2, 4, 6, 7), (LinkedStatement("Loves tea.", 0, 10, Links((2, 7), ())),)
    write_evidence(run.evidence, [replace(entry, seen=places, statements=statements) for entry in evidence])
    forget.forgetting(run)
    copies = {b.name: b for b in load_benchmarks([str(run.out / "data")])}
    places_by_name = {"whole": places, "forgotten": (4, 6), "others_dropped": (2, 7)}
    for name, rest in places_by_name.items():
        for record in copies[f"{name}~movielens"].records:
            texts = [x.chosen for x in shown_history(copies[f"{name}~movielens"], record)]
            assert texts == [f"item {place}" for place in rest]


def test_a_policy_that_forgets_and_one_that_does_not(run):
    def honest(history: list[str]) -> str:
        tea = {"item 0", "item 1"} & set(history)
        coffee = {"item 1", "item 3", "item 4"} & set(history)
        return " ".join(["Loves tea."] * bool(tea) + ["Loves coffee."] * bool(coffee) or ["Nothing."])

    forget.forgetting(run)
    derive(run, honest)
    markdown = forget.forgetting(run)
    cells = [
        [text.strip() for text in line.split("|")[2:-1]] for line in markdown.splitlines() if line.startswith("| ")
    ]
    evidence, others, redrawn = cells[2:]
    assert evidence[1].startswith("100.00") and others[1].startswith("0.00") and redrawn[1].startswith("0.00")
    assert evidence[2].startswith("+100.00") and evidence[4].startswith("100.00")
    assert (run.out / "table_forgetting.csv").is_file()


def test_a_policy_that_repeats_itself_fails(run):
    forget.forgetting(run)
    derive(run, lambda history: "Loves tea. Loves coffee.")
    assert "| its evidence | 4 | 0.00 [0.00, " in forget.forgetting(run)


def test_without_evidence_it_says_what_to_run(run):
    run.policy = "nobody"
    with pytest.raises(RecordError, match=r"no evidence of nobody.*faithfulness\.py first"):
        forget.forgetting(run)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"judge": "j2"}, "--judge was j, is j2 now"),
        ({"seed": 1}, "--seed was 0, is 1 now"),
        ({"policy": "theirs"}, "--policy was ours, is theirs now"),
        ({"limit": 3}, "--limit was None, is 3 now"),
    ],
)
def test_a_plan_of_other_options_is_not_read_as_theirs(run, change, sentence):
    evidence = read_evidence(run.evidence)
    variants = [{}, {"judge": "j2"}, {"policy": "theirs"}]
    write_evidence(run.evidence, [replace(entry, **variant) for variant in variants for entry in evidence])
    forget.forgetting(run)
    derive(run, lambda history: "Loves tea.")
    assert forget.forgetting(run) == forget.forgetting(replace(run, judge="j"))
    with pytest.raises(UserError, match=f"{sentence}.*another --out.*forgotten.jsonl"):
        forget.forgetting(replace(run, **change))
    for absent in ({"judge": "nobody"}, {"evidence": run.evidence / "nope"}):
        with pytest.raises(RecordError, match=r"no evidence of ours.*faithfulness\.py first"):
            forget.forgetting(replace(run, **absent))


def test_a_plan_of_other_evidence_is_refused_and_drawn_anew_where_it_is_removed(run):
    forget.forgetting(run)
    derive(run, lambda history: "Loves tea. Loves coffee.")
    evidence = [replace(entry, statements=TOLD[1:]) for entry in read_evidence(run.evidence)]
    write_evidence(run.evidence, evidence)
    with pytest.raises(UserError, match="the evidence is another"):
        forget.forgetting(run)
    (run.out / forget.PLAN).unlink()
    assert "4 users" in forget.forgetting(run)
    derive(run, lambda history: "Loves tea.")  # its rows stand beside those of the old copies
    assert "| its evidence | 4 | 100.00 [" in forget.forgetting(run)


def test_a_plan_of_before_counts_where_the_options_draw_the_same(run):
    forget.forgetting(run)
    derive(run, lambda history: "Loves tea.")
    table = forget.forgetting(run)
    path = run.out / forget.PLAN
    rows = [{name: value for name, value in row.items() if name != "made_of"} for _, row in read_jsonl(path)]
    assert write_jsonl(path, rows) == 4
    assert forget.forgetting(run) == table
    with pytest.raises(UserError, match="these options draw another one"):
        forget.forgetting(replace(run, seed=1))


def test_nobody_to_test_is_an_error_and_no_empty_copies(run):
    evidence = read_evidence(run.evidence)
    write_evidence(run.evidence, [replace(entry, statements=TOLD[2:]) for entry in evidence])
    with pytest.raises(UserError, match="nobody to test.*supported"):
        forget.forgetting(run)
    assert not run.out.exists()


def test_of_a_folder_with_two_benchmarks_one_is_to_be_named(run, benchmark_file):
    path = benchmark_file("mind", [UserRecord("u", HISTORY, Interaction("a", "b"))])
    with pytest.raises(UserError, match=r"holds mind, movielens.*name one.*mind=.*mind_upi\.jsonl"):
        forget.forgetting(replace(run, data=str(path.parent)))
