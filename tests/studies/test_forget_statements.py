"""What the study of forgetting forgets, and what it counts as gone."""

import json
from pathlib import Path

from alignxplore.ask.evidence import Statement
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.updates import Part, Slice, Stream, Updates, Version
from alignxplore.journal import Journal
from alignxplore.records import Interaction, UserRecord, write_json
from alignxplore.summarize import StageSummary

STUDY = "forget_statements"


def film(title: str, genre: str) -> str:
    return f"Title: {title} (1995), Genres: {genre}"


def stage(summary: str) -> StageSummary:
    return StageSummary("", "", summary, None, 0, 1, 1)


def test_a_statement_and_as_many_choices_that_say_nothing_of_it_are_drawn(study):
    record = UserRecord("u", (Interaction("a"),), Interaction("b", "c"))
    claims = [Statement("liked", (0, 2), (4,), 1), Statement("by its words", (1,))]
    plan = study.Plan.of(record, claims, 6, 0)
    assert plan.places["evidence"] == (0, 2) and set(plan.places["others"]) < {1, 3, 5} and len(plan.places) == 2
    assert study.Plan.of(record, claims, 5, 0) is not None and study.Plan.of(record, claims, 3, 0) is None
    assert study.Plan.of(record, [Statement("disliked", (0,), (1, 3), -1)], 6, 0).places["evidence"] == (1, 3)


def test_gone_is_what_the_summary_derived_anew_does_not_say(study, tmp_path):
    """Action rested on the first choice alone, Comedy also on the others; now only Comedy is told."""
    films = [("a", "Action", "Drama"), ("b", "Comedy", "War"), ("c", "Comedy", "War"), ("d", "Crime", "War")]
    choices = [{"chosen": film(name, genre), "rejected": film(f"no {name}", other)} for name, genre, other in films]
    row = {"userid": "1#1", "history": choices * 2, "target": choices[0] | {"chosen": film("z", "War")}}
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/movielens_upi.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (benchmark,) = load_benchmarks([str(path)])
    (record,) = benchmark.records
    before = SummarySet(tmp_path / "eval", "sft+rl", "movielens", "full", 0)
    write_json(before.meta_path, {"run": "r"})
    with Journal(before.journal_path) as journal:
        summary = "Films: Action liked, Comedy liked, War disliked."
        stages = [vars(stage(summary))]
        journal.append("x", {"run": "r", "record": record.id, "user": "1#1", "stages": stages})
    folder = tmp_path / "after"
    with Updates(SummarySet(folder, "sft+rl", "movielens", "full", 0)) as updates:
        stream = updates.keep(Stream("1#1", ("k",), (Slice((Part("data", record.history[1:4]),)),)))
        version = Version("1#1", 0, None, "m", "p", None, stage("Films: Comedy liked, Crime liked."))
        updates.journal.append(stream.versions[-1], version.row())
    options = study.ForgettingStudyOptions(run=tmp_path, out=tmp_path / "out", persons=1)
    plan = study.Plan(record, {"evidence": (0,), "others": (3,)})
    outcomes = list(study.outcomes(options, benchmark, [plan], "evidence", folder, "full"))
    assert [(outcome.alone, outcome.again) for outcome in outcomes] == [(True, False), (False, True), (False, False)]
    (planned,) = study.plans_of(options, benchmark)
    assert planned.record == record and Path(options.run) == tmp_path
