"""The table of costs and the plot of summary length against accuracy, from made-up summaries."""

from dataclasses import asdict, replace

import matplotlib.pyplot as plt

from alignxplore.evaluation.costs import Cost
from alignxplore.evaluation.report import costs, writing
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import write_results, write_scores
from alignxplore.records import write_json, write_jsonl
from tests.evaluation.made_up import run_of, scores

ONE = Cost("ours", "full", "mind", 0, "r0", 1000, 100, 80, 20, 12, 2.0, False, None)


def test_every_column_is_a_mean_over_all_summaries():
    found = [
        ONE,
        replace(ONE, tokens=300, reasoning_tokens=280, prompt_tokens=3000, words=14, seconds=4.0),
        replace(ONE, summary_tokens=0, words=0, cut=True, problem="unfinished reasoning"),
        replace(ONE, summary_tokens=0, words=0, problem="empty summary"),
        replace(ONE, setting="streaming", reasoning_tokens=None, summary_tokens=None, seconds=None),
    ]
    table = costs.costs_table(found)
    assert table.head[3:] == [
        "n", "prompt tokens", "new tokens", "of them reasoning", "summary tokens", "summary words", "seconds", "cut %",
        "bad format by reason, %",
    ]  # fmt: skip
    assert table.body == [
        ["MIND", "ours", "full", "4", "1,500.0", "150.0", "130.0", "10.0", "6.5", "2.50", "25.00",
         "unfinished reasoning 25.00; empty summary 25.00"],
        ["MIND", "ours", "streaming", "1", "1,000.0", "100.0", "–", "–", "12.0", "–", "0.00", "–"],
    ]  # fmt: skip
    assert costs.costs_table([]) is None


def test_the_plot_shows_accuracy_by_fifths_of_length():
    """Summary i has i + 1 words; the longest fifth is right always, the shortest one never, the middle in half."""
    rows = scores("ours", "mind", 100, 1, protocol="choice")
    rows = [replace(row, value=(0.0, 0.25, 0.5, 0.75, 1.0)[i // 20]) for i, row in enumerate(rows)]
    others = [replace(row, judge="gpt", value=0.0) for row in rows]
    took = [replace(ONE, record=f"r{i}", words=i + 1) for i in range(100)]
    bad = [replace(row, outcome="bad_format", record=f"b{i}", value=0.5) for i, row in enumerate(rows)]
    problems = [replace(ONE, record=f"b{i}", words=0, problem="empty summary") for i in range(100)]
    with plt.rc_context({"figure.constrained_layout.use": True}):
        figure = costs.accuracy_by_length(took + problems, rows + others + bad, "choice")
    (panel,) = figure.axes
    (bars,) = panel.containers
    assert [round(float(x), 1) for x in bars.lines[0].get_xdata()] == [10.5, 30.5, 50.5, 70.5, 90.5]
    assert [round(float(y)) for y in bars.lines[0].get_ydata()] == [0, 25, 50, 75, 100]
    plt.close(figure)
    same = [replace(cost, words=7) for cost in took]
    figure = costs.accuracy_by_length(same, rows, "choice")
    ((bars,),) = (panel.containers for panel in figure.axes)
    assert [list(map(float, bars.lines[0].get_xdata()))] == [[7.0]], "summaries of one length are one point"
    plt.close(figure)
    assert costs.accuracy_by_length([], rows, "choice") is None
    assert costs.accuracy_by_length(took, rows, "paper") is None


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
