"""The table of costs and the plot of summary length against accuracy, from made-up summaries."""

from dataclasses import asdict, replace

import matplotlib.pyplot as plt
import pytest

from alignxplore.evaluation.costs import Cost, Spent
from alignxplore.evaluation.report import costs, writing
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import write_results, write_scores
from alignxplore.records import write_json, write_jsonl
from tests.evaluation.made_up import run_of, scores

LENGTHS = (("ours", 20), ("ours~8", 7))
ONE = Cost("ours", "full", "mind", 0, "r0", 1000, 100, 80, 20, 12, 2.0, False, None)


def test_every_column_is_a_mean_over_all_summaries():
    entries = [
        ONE,
        replace(ONE, tokens=300, reasoning_tokens=280, prompt_tokens=3000, words=14, seconds=4.0),
        replace(ONE, summary_tokens=0, words=0, cut=True, problem="unfinished reasoning"),
        replace(ONE, summary_tokens=0, words=0, problem="empty summary"),
        replace(ONE, setting="streaming", reasoning_tokens=None, summary_tokens=None, seconds=None),
    ]
    table = costs.costs_table(entries)
    assert table.head[3:] == [
        "n", "prompt tokens", "new tokens", "of them reasoning", "summary tokens", "summary words", "seconds",
        "GPU-seconds",
        "cut %",
        "bad format by reason, %",
    ]  # fmt: skip
    assert table.body == [
        ["MIND", "ours", "full", "4", "1,500.0", "150.0", "130.0", "10.0", "6.5", "2.50", "–", "25.00",
         "unfinished reasoning 25.00; empty summary 25.00"],
        ["MIND", "ours", "streaming", "1", "1,000.0", "100.0", "–", "–", "12.0", "–", "–", "0.00", "–"],
    ]  # fmt: skip
    assert costs.costs_table([]) is None


def test_the_plot_shows_accuracy_by_fifths_of_length():
    """Summary i has i + 1 words; the longest fifth is right always, the shortest one never, the middle in half."""
    rows = scores("ours", "mind", 100, 1, protocol="choice")
    rows = [replace(row, value=(0.0, 0.25, 0.5, 0.75, 1.0)[i // 20]) for i, row in enumerate(rows)]
    others = [replace(row, judge="gpt", value=0.0) for row in rows]
    entries = [replace(ONE, record=f"r{i}", words=i + 1) for i in range(100)]
    bad = [replace(row, outcome="bad_format", record=f"b{i}", value=0.5) for i, row in enumerate(rows)]
    problems = [replace(ONE, record=f"b{i}", words=0, problem="empty summary") for i in range(100)]
    with plt.rc_context({"figure.constrained_layout.use": True}):
        figure = costs.accuracy_by_length(entries + problems, rows + others + bad, "choice")
    (panel,) = figure.axes
    (bars,) = panel.containers
    assert [round(float(x), 1) for x in bars.lines[0].get_xdata()] == [10.5, 30.5, 50.5, 70.5, 90.5]
    assert [round(float(y)) for y in bars.lines[0].get_ydata()] == [0, 25, 50, 75, 100]
    plt.close(figure)
    equal_lengths = [replace(cost, words=7) for cost in entries]
    figure = costs.accuracy_by_length(equal_lengths, rows, "choice")
    ((bars,),) = (panel.containers for panel in figure.axes)
    assert [list(map(float, bars.lines[0].get_xdata()))] == [[7.0]], "summaries of one length are one point"
    plt.close(figure)
    few_longer = [
        replace(cost, policy=policy, words=9 if i < count else 7)
        for policy, count in (("ours", 2), ("theirs", 3))
        for i, cost in enumerate(entries)
    ]
    both_rows = rows + [replace(row, policy="theirs") for row in rows]
    figure = costs.accuracy_by_length(few_longer, both_rows, "choice")
    (panel,) = figure.axes
    points = [list(map(float, bars.lines[0].get_xdata())) for bars in panel.containers]
    assert points == [[pytest.approx(7.04)], [pytest.approx(7.06)]], "two or three of a hundred are no point"
    ticks = panel.get_xticks()
    assert len(ticks) >= 3 and all(float(tick).is_integer() for tick in ticks), "no half words"
    plt.close(figure)
    assert costs.accuracy_by_length([], rows, "choice") is None
    assert costs.accuracy_by_length(entries, rows, "paper") is None


def test_a_report_has_both(tmp_path):
    rows = [replace(row, shown=4) for row in scores("ours", "mind", 20, 0.5, protocol="choice")]
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    write_json(tmp_path / "run.json", run_of(mind=20))
    write_jsonl(tmp_path / "costs.jsonl", (asdict(replace(ONE, record=f"r{i}", words=i)) for i in range(20)))
    writing.write(tmp_path)
    assert "What a summary takes" in (tmp_path / "report.md").read_text()
    assert 'alt="length_choice"' in (tmp_path / "report.html").read_text()
    assert (tmp_path / "table_costs.csv").exists()


def test_what_short_summaries_cost_is_paired_with_the_same_policy_without():
    """At most 8 tokens: two of ten users turn wrong."""
    entries = [replace(ONE, record=f"r{i}", policy=p, summary_tokens=t) for i in range(10) for p, t in LENGTHS]
    rows = scores("ours", "mind", 10, 1.0, protocol="choice")
    shorter = scores("ours~8", "mind", 10, 1.0, protocol="choice")
    rows += [replace(row, value=float(i > 1)) for i, row in enumerate(shorter)]
    table = costs.brevity(entries, rows, "choice")
    line = dict(zip(table.head, table.body[0]))
    assert (line["policy"], line["asked for"], line["difference"]) == ("ours", "8", "−20.00")
    assert (line["tokens without"], line["tokens with"], line["n"]) == ("20.0", "7.0", "10")
    assert costs.brevity(entries, [row for row in rows if row.policy == "ours~8"], "choice") is None


def test_gpu_seconds_are_those_of_the_set_shared_alike():
    first = Spent.of(None, "r", gpus=4).more(10.0, 5)
    assert first.gpu_seconds == 8.0 and Spent().gpu_seconds is None
    second = Spent.of({"run": "r", "spent": asdict(first)}, "r", gpus=0).more(5.0, 5)
    assert (second.seconds, second.summaries, second.gpu_seconds) == (15.0, 10, 6.0)
    assert Spent.of({"run": "other", "spent": asdict(first)}, "r", gpus=2) == Spent(gpus=2)
    cost = replace(ONE, gpu_seconds=6.0)
    table = costs.costs_table([cost])
    assert dict(zip(table.head, table.body[0]))["GPU-seconds"] == "6.00"
