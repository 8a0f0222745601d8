"""Bars and points of the plots: an interval that begins at nothing is drawn, one that is not known is not; and nothing
lies on an edge."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from alignxplore.evaluation.report import plots, stages
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import Result
from tests.evaluation.made_up import scores


def row(accuracy: float, low: float | None, high: float | None) -> Result:
    key = {"policy": "sft", "setting": "full", "benchmark": "b", "judge": "j", "protocol": "choice"}
    return Result(**key, n=9, accuracy=accuracy, ci_low=low, ci_high=high)


@pytest.mark.parametrize(("low", "high", "reach"), [(0.0, 0.6, [0.0, 60.0]), (None, None, [30.0, 30.0])])
def test_bars_reach_as_far_as_the_interval(monkeypatch, low, high, reach):
    plt.switch_backend("Agg")
    figures = []
    monkeypatch.setattr(stages, "save", lambda figure, path: figures.append(figure))
    stages.accuracy_by_stage([row(0.3, low, high)], Path())
    ends = [y for line in figures[0].axes[0].collections for segment in line.get_segments() for _, y in segment]
    assert sorted(ends) == pytest.approx(reach)
    plt.close(figures[0])


def test_points_lie_inside_their_panels_and_each_column_ends_with_its_numbers():
    names, judges = ("mind", "mind~shuffled", "amazon", "alignx"), ("a", "b")
    rows = result_rows(
        row
        for name in names
        for judge in judges
        for policy in "pq"
        for row in scores(policy, name, 9, 0.5, judge=judge)
    )
    figure = plots.draw(rows, [])["accuracy_paper"]
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == ["MIND", "MIND, shuffled", "Amazon", "AlignX"]
    assert [panel.xaxis.get_tick_params()["labelbottom"] for panel in panels] == [False, True, True, True]
    for panel in panels:
        low, high = sorted(panel.get_ylim())
        places = [y for line in panel.lines if line.get_marker() == "o" for y in line.get_ydata()]
        assert len(places) == 4 and all(low + 0.1 < place < high - 0.1 for place in places)
    plt.close(figure)
