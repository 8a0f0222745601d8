"""A table in which every benchmark, judge, setting and policy has an accuracy of its own, cell by cell in every table:
no two columns, rows, judges or settings can be taken for each other."""

import itertools
from dataclasses import replace

import pytest

from alignxplore.datasets import DATASETS
from alignxplore.evaluation.published import Paper
from alignxplore.evaluation.report import layouts
from alignxplore.evaluation.report.paired import paired_tests
from alignxplore.evaluation.report.tables import csv_text, label, latex, markdown
from alignxplore.evaluation.results import result_rows
from tests.evaluation.made_up import run_of, scores

ROWS = 200
POLICIES, JUDGES, SETTINGS = ("ours", "theirs", "third"), ("qwen", "gpt"), ("full", "streaming")
BENCHMARKS = [name for name in DATASETS if layouts.family(name) == "main"]
CELLS = list(itertools.product(BENCHMARKS, JUDGES, SETTINGS, POLICIES))
RIGHT = {cell: 40 + place for place, cell in enumerate(CELLS)}  # of 200 rows, another number in every cell


@pytest.fixture(scope="module")
def score_rows():
    """The score rows of all cells."""
    rows_of_cells = []
    for (benchmark, judge, setting, policy), right in RIGHT.items():
        rows = scores(policy, benchmark, ROWS, 1, setting=setting, judge=judge, protocol="choice")
        rows_of_cells += [
            replace(row, record=f"{benchmark} {i}", value=float(i < right)) for i, row in enumerate(rows)
        ]
    return rows_of_cells


def number(text):
    return float(text.replace("−", "-").split(" ")[0])


def test_there_is_another_number_in_every_cell():
    assert len(set(RIGHT.values())) == len(CELLS) == len(BENCHMARKS) * 12


def test_every_cell_of_the_wide_tables_is_its_own(score_rows):
    rows, run = result_rows(score_rows), run_of(**dict.fromkeys(BENCHMARKS, ROWS))
    for judge in JUDGES:
        table = layouts.wide(rows, run, "main", judge, "choice", Paper(), {})
        heads = {head.split(" (n =")[0]: place for place, head in enumerate(table.head)}
        line_of = {(line[0], line[1]): line for line in table.body if line[0] in POLICIES}
        assert set(line_of) == set(itertools.product(POLICIES, SETTINGS))
        for (policy, setting), line in line_of.items():
            shares = {name: RIGHT[name, judge, setting, policy] / ROWS for name in BENCHMARKS}
            assert {name: number(line[heads[label(name)]]) for name in BENCHMARKS} == {
                name: pytest.approx(100 * value, abs=0.005) for name, value in shares.items()
            }
            omissions = table.note.partition("The averages are without")[2]
            average_names = [name for name in BENCHMARKS if label(name) not in omissions]
            mean = sum(shares[name] for name in average_names) / len(average_names)
            assert number(line[heads["average"]]) == pytest.approx(100 * mean, abs=0.006)


def test_every_line_of_the_details_is_its_own(score_rows):
    table = layouts.details(result_rows(score_rows), "choice")
    place = table.head.index("accuracy %")
    numbers = {(line[2], line[3], line[1], line[0]): number(line[place]) for line in table.body}
    assert numbers == {
        (label(benchmark), *others): pytest.approx(100 * right / ROWS) for (benchmark, *others), right in RIGHT.items()
    }


def test_every_comparison_is_of_its_own_two_cells(score_rows):
    table = paired_tests(score_rows, "choice")
    assert len(table.body) == (len(BENCHMARKS) + 1) * 2 * 2 * 3
    names = {label(name): name for name in BENCHMARKS}
    for benchmark, judge, setting, comparison, n, difference, *_ in table.body:
        of = [names[benchmark]] if benchmark in names else BENCHMARKS
        better, worse = (sum(RIGHT[name, judge, setting, p] for name in of) for p in comparison.split(" − "))
        difference_of_cells = 100 * (better - worse) / ROWS / len(of)
        assert (int(n), number(difference)) == (ROWS * len(of), pytest.approx(difference_of_cells, abs=0.006))
    averages = [line for line in table.body if line[0] == f"average of {len(BENCHMARKS)}"]
    assert len(averages) == 2 * 2 * 3 and table.body[-12:] == averages


def test_every_form_of_a_table_has_the_same_cells(score_rows):
    table = layouts.details(result_rows(score_rows), "choice")
    numbers = [line[table.head.index("accuracy %")].split(" ")[0] for line in table.body]
    for text in (markdown(table), latex(table), csv_text(table)):
        places = [text.find(number) for number in numbers[:12]]
        assert -1 not in places and places == sorted(places)
