"""What is said of downstream models: agreement, order bias, Brier score, reliability, each from rows of known
answers."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from alignxplore.evaluation.report import downstream, writing
from alignxplore.evaluation.report.tables import MISSING, latex
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import write_results, write_scores
from alignxplore.evaluation.worth import Score
from alignxplore.records import write_json
from tests.evaluation.made_up import run_of, score


def row(record, value, *, policy="ours", setting="full", judge="a", orders=None, outcome="ok", seed=0, places=True):
    names = {"record": f"r{record}", "user": f"u{record}", "target": f"t{record}", "item": f"t{record}"}
    score_row = score(policy=policy, setting=setting, judge=judge, seed=seed, value=value, outcome=outcome, **names)
    if orders:
        first, second = orders
        flips = ((first > 0.5) != (second > 0.5),) if places else None
        score_row = replace(score_row, orders=((first, second),), p=(first + second) / 2, flips=flips)
    return score_row


def both(counts: dict[tuple[float, float], int], **about) -> list[Score]:
    """Rows of judges a and b that give each pair of values so many times."""
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    return [row(i, x, judge=judge, **about) for i, pair in enumerate(pairs) for judge, x in zip("ab", pair)]


def test_agreement_is_of_the_rows_that_both_judged():
    """Cohen's own arithmetic: of 100 rows 40 + 30 alike, chance (.6 x .5 + .4 x .5) = .5, so kappa = .4."""
    rows = both({(1, 1): 40, (1, 0): 20, (0, 1): 10, (0, 0): 30})
    rows += both({(1, 1): 50, (0, 0): 50}, setting="streaming")
    rows += [row(i, 0.5, outcome="bad_format", judge=judge) for i in range(500, 600) for judge in "ab"]
    rows += [row(700, 1.0)]
    rows += [row(i, float(i % 2), policy=judge, judge=judge, setting="direct") for i in range(40) for judge in "ab"]
    table = downstream.agreements(rows, "choice")
    assert table.head == ["benchmark", "judges", "read", "n", "agree %", "κ"]
    first, second, third = table.body
    assert first[:5] == ["MIND", "a and b", "ours, full", "100", "70.00"] and first[5].startswith("0.400 [0.2")
    assert second[2:5] == ["ours, streaming", "100", "100.00"] and second[5].startswith("1.000")
    assert third[2:5] == ["raw history", "40", "100.00"]
    assert r"$\kappa$" in latex(table)
    assert downstream.agreements([x for x in rows if x.judge == "a"], "choice") is None


def test_undecided_is_an_answer_of_its_own_and_one_that_never_varies_has_no_kappa():
    (line,) = downstream.agreements(both({(0.5, 0.5): 5, (1, 0.5): 5}), "choice").body
    assert line[4] == "50.00" and line[5].startswith("0.000")
    (line,) = downstream.agreements(both({(1, 1): 5}), "choice").body
    assert line[4:] == ["100.00", MISSING]


def test_the_place_of_an_item_and_the_brier_score():
    """Judge a says A nine times in ten whatever stands there; b knows, and its orders are of one mind."""
    rows = [row(i, 0.5, orders=(0.9, 0.1)) for i in range(20)]
    rows += [row(i, 1.0, judge="b", orders=(0.8, 0.6)) for i in range(20)]
    rows += [row(i, 1.0, judge="b", policy="no summary", setting="none", orders=(0.5, 0.5)) for i in range(20)]
    rows += [row(i, 1.0, judge="c", policy="c", setting="direct", orders=(0.9, 0.5), places=False) for i in range(20)]
    table = downstream.reading_habits(rows, "choice")
    assert table.head[4:] == ["mean P(A) %", "first %", "second %", "flips %", "Brier x 100"]
    cells_of = {(line[1], line[2]): [text.split(" ")[0] for text in line[3:]] for line in table.body}
    assert cells_of == {
        ("a", "summaries"): ["20", "90.00", "100.00", "0.00", "100.00", "25.00"],
        ("b", "summaries"): ["20", "60.00", "100.00", "100.00", "0.00", "9.00"],
        ("b", "nothing"): ["20", "50.00", "50.00", "50.00", "0.00", "25.00"],
        ("c", "raw history"): ["20", MISSING, MISSING, MISSING, MISSING, "9.00"],
    }


def test_one_drawn_order_has_one_place():
    rows = [replace(row(i, 1.0), orders=((0.7, None),), p=0.7, flips=(None,)) for i in range(20)]
    (line,) = downstream.reading_habits(rows, "choice").body
    assert [text.split(" ")[0] for text in line[4:]] == ["70.00", "100.00", MISSING, MISSING, "9.00"]


def test_the_reliability_diagram_shows_how_often_a_model_is_right_when_it_is_so_sure():
    """Of 40 rows at 0.55 sure half are right, of 60 at 0.95 all but six; strangers' summaries are not asked."""
    rows = [row(i, 1.0, orders=(0.55, 0.55) if i % 2 else (0.45, 0.45)) for i in range(40)]
    rows += [row(i, 1.0, orders=(0.05, 0.05) if i < 46 else (0.95, 0.95)) for i in range(40, 100)]
    rows += [row(i, 1.0, policy="other user's (ours)", orders=(0.1, 0.1)) for i in range(100)]
    figure = downstream.reliability(rows, "choice")
    (panel,) = figure.axes
    points = [
        (round(float(bar.lines[0].get_xdata()[0]), 2), round(float(bar.lines[0].get_ydata()[0]), 3))
        for bar in panel.containers
        if hasattr(bar, "lines")
    ]
    assert points == [(0.55, 0.5), (0.95, 0.9)]
    assert [round(bar.get_height(), 2) for bar in panel.patches] == [0.4, 0.6]
    brier = 0.4 * (0.45**2 + 0.55**2) / 2 + 0.6 * (0.1 * 0.95**2 + 0.9 * 0.05**2)
    title_score = panel.get_title().removeprefix("a (Brier ").removesuffix(")")
    assert float(title_score) == pytest.approx(brier, abs=6e-4)
    plt.close(figure)


@pytest.mark.parametrize("judges", ["a", "ab"])
def test_the_report_has_these_tables(tmp_path, judges):
    rows = [row(i, 1.0, judge=judge, orders=(0.7, 0.6)) for i in range(20) for judge in judges]
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    write_json(tmp_path / "run.json", run_of(mind=20))
    writing.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Habits of the downstream models" in text and ("Agreement" in text) == (len(judges) == 2)
    assert 'alt="reliability_choice"' in (tmp_path / "report.html").read_text()
