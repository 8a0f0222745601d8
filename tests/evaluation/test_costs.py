"""What summaries took, from the journals that generation leaves."""

import json

import pytest

from alignxplore.evaluation import scoring
from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.costs import FILE, read_costs
from alignxplore.journal import Journal
from alignxplore.records import RecordError, write_json
from alignxplore.summarize import StageSummary, Summaries


def stage(summary, problem=None, tokens=100, cut=False, **values) -> StageSummary:
    return StageSummary("text", "why", summary, problem, 0, 50, tokens, cut, **values)


@pytest.fixture
def costs(record, benchmark_file, tmp_path):
    """Costs by user, as the files of an evaluation hold them, of the given outcomes."""

    def run(outcomes: dict[str, Summaries], users="abcd"):
        path = benchmark_file("world_films", records := [record(user) for user in users])
        ids = {r.user: r.id for r in records} | {"stranger": record("stranger").id}
        target = SummarySet(tmp_path / "out", "ours", "world_films", "streaming", 0)
        write_json(target.meta_path, {"run": "r"})
        with Journal(target.journal_path) as journal:
            for user, outcome in outcomes.items():
                journal.append(user, {"run": "r", "record": ids[user], "user": user} | outcome.row())
        benchmarks = {b.name: b for b in load_benchmarks([str(path)])}
        options = {"judge": ["x=http://nowhere/v1"], "data": [str(path)], "out": str(tmp_path / "out")}
        scoring.write_results(EvaluationArguments(**options), benchmarks, [], {}, {})
        users_of = {value: key for key, value in ids.items()}
        return {users_of[cost.record]: cost for cost in read_costs(tmp_path / "out")}

    return run


def test_a_stream_costs_all_its_stages_and_is_as_long_as_its_last_summary(costs):
    first = stage("a b c d", tokens=30, summary_tokens=5, seconds=1.5)
    last = stage("a b", tokens=40, cut=True, summary_tokens=3, seconds=0.25)
    bad_format = stage("", "unfinished reasoning", tokens=64, cut=True, summary_tokens=0, seconds=2.0)
    cost_of = costs(
        {
            "a": Summaries((first, last)),
            "b": Summaries((first, bad_format)),
            "c": Summaries(status="too_long", error="the newest interaction alone"),
            "d": Summaries(status="transport_error", error="no reply"),
            "stranger": Summaries((first,)),
        }
    )
    assert set(cost_of) == {"a", "b", "c"}, "neither what failed nor who is in no benchmark"
    a, b, c = (cost_of[user] for user in "abc")
    assert (a.tokens, a.reasoning_tokens, a.summary_tokens, a.words, a.prompt_tokens) == (70, 62, 3, 2, 100)
    assert (a.seconds, a.cut, a.problem) == (1.75, True, None)
    assert (b.tokens, b.reasoning_tokens, b.summary_tokens, b.words) == (94, 89, 0, 0)
    assert (b.seconds, b.cut, b.problem) == (3.5, True, "unfinished reasoning")
    assert (c.tokens, c.words, c.problem) == (0, 0, "the newest interaction alone")


def test_what_an_earlier_version_did_not_note_is_not_known(costs):
    cost = costs({"a": Summaries((stage("a b", seconds=1.0), stage("a b c", summary_tokens=4)))})["a"]
    assert (cost.tokens, cost.words, cost.summary_tokens) == (200, 3, 4)
    assert cost.reasoning_tokens is None and cost.seconds is None
    assert costs({"a": Summaries((stage("a b", tokens=0, summary_tokens=2),))})["a"].reasoning_tokens is None


def test_a_folder_without_costs_has_none_and_a_torn_one_says_what_to_run(tmp_path):
    assert read_costs(tmp_path) == []
    (tmp_path / FILE).write_text(json.dumps({"policy": "ours"}) + "\n")
    with pytest.raises(RecordError, match=r"costs\.jsonl:1: .*run evaluate\.py again"):
        read_costs(tmp_path)
