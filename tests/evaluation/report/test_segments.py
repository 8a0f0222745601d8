"""The table and the plot by kind of row: every cell holds the accuracy of its own rows."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from alignxplore.evaluation.report import plots, segments, writing
from alignxplore.evaluation.report.tables import MISSING
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import write_results, write_scores
from alignxplore.evaluation.worth import Score
from alignxplore.records import write_json
from tests.evaluation.made_up import run_of, scores

N = 100
RIGHT = {  # of so many rows of each group, for every reader and judge another number
    ("sft", "full", "qwen"): (10, 20),
    ("sft", "streaming", "qwen"): (30, 40),
    ("sft", "full", "gpt"): (50, 60),
    ("qwen", "direct", "qwen"): (70, 80),
    ("gpt", "direct", "gpt"): (15, 25),
    ("content tally", "direct", "none"): (90, 100),
    ("other user's (sft)", "full", "qwen"): (1, 2),
    ("no summary", "none", "qwen"): (3, 4),
}


def planted(benchmark="movielens") -> list[Score]:
    score_rows = []
    for (policy, setting, judge), right in RIGHT.items():
        rows = scores(policy, benchmark, 2 * N, 1, setting=setting, judge=judge, protocol="choice")
        for i, row in enumerate(rows):
            group, place = divmod(i, N)
            facts = {"shown": (4, 40)[group], "popularity": 7, "question_type": None, "persona": None}
            score_rows.append(replace(row, **facts, value=float(place < right[group])))
    return score_rows


def test_every_cell_is_of_its_own_rows():
    table = segments.by_segment(planted(), "choice")
    assert table.head[:5] == ["benchmark", "judge", "kind", "group", "n"]
    columns = table.head[5:]
    assert columns == ["sft, full", "sft, streaming", "downstream model, direct", "content tally, direct"]
    ranges = {"qwen": [(10, 20), (30, 40), (70, 80), (90, 100)], "gpt": [(50, 60), None, (15, 25), (90, 100)]}
    assert len(table.body) == 4
    for line in table.body:
        group = ["1 to 5 (cold start)", "26 to 50"].index(line[3])
        assert line[2] == "interactions shown" and line[4] == str(N)
        cells = [text if text == MISSING else float(text.split(" ")[0]) for text in line[5:]]
        assert cells == [MISSING if pair is None else pair[group] for pair in ranges[line[1]]]
        assert all("[" in text for text in line[5:] if text != MISSING)
    assert segments.by_segment(planted(), "paper") is None


def test_the_plot_holds_the_numbers_of_the_first_downstream_model():
    rows = planted() + planted("mind")
    with plt.rc_context({"figure.constrained_layout.use": True}):
        figure = segments.accuracy_by_segment(rows, "choice")
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("MovieLens: interactions shown", "MIND: interactions shown")
    lines = [[round(y) for y in bars.lines[0].get_ydata()] for bars in first.containers]
    assert sorted(lines) == [[10, 20], [70, 80], [90, 100]], "full comes before streaming"
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"content tally, direct", "downstream model, direct", "sft, full"}
    plt.close(figure)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_report_has_the_table_and_the_plot_or_says_why_not(tmp_path, is_old):
    rows = planted()
    if is_old:
        rows = [replace(row, shown=None) for row in rows]
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    write_json(tmp_path / "run.json", run_of(movielens=2 * N))
    writing.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert ("By kind of row" in text) is not is_old
    assert ("evaluate.py, run again, asks nothing anew" in text) is is_old
    assert (tmp_path / "table_segments_choice.csv").exists() is not is_old
    figures = plots.draw(result_rows(rows), rows)
    assert ("segments_choice" in figures) is not is_old
    for figure in figures.values():
        plt.close(figure)
