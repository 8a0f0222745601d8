"""Bars of the plots: an interval that begins at nothing is drawn, one that is not known is not."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from alignxplore.evaluation.report import stages
from alignxplore.evaluation.rows import Result


def row(accuracy: float, low: float | None, high: float | None) -> Result:
    named = {"policy": "sft", "setting": "full", "benchmark": "b", "judge": "j", "protocol": "choice"}
    return Result(**named, n=9, accuracy=accuracy, ci_low=low, ci_high=high)


@pytest.mark.parametrize(("low", "high", "reach"), [(0.0, 0.6, [0.0, 60.0]), (None, None, [30.0, 30.0])])
def test_bars_reach_as_far_as_the_interval(monkeypatch, low, high, reach):
    plt.switch_backend("Agg")
    drawn = []
    monkeypatch.setattr(stages, "save", lambda figure, path: drawn.append(figure))
    stages.accuracy_by_stage([row(0.3, low, high)], Path())
    ends = [y for line in drawn[0].axes[0].collections for segment in line.get_segments() for _, y in segment]
    assert sorted(ends) == pytest.approx(reach)
    plt.close(drawn[0])
