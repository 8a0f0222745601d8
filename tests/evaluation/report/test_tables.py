"""How a table and its cells are written."""

import csv
from dataclasses import replace

from alignxplore.evaluation.comparisons import COMPARED, compared
from alignxplore.evaluation.report.tables import MISSING, Table, cell_text, csv_text, latex, markdown, short
from alignxplore.evaluation.results import result_rows
from alignxplore.statistics import Paired
from tests.evaluation.made_up import scores


def test_every_form_of_a_table_holds_every_cell_and_is_not_broken_by_its_texts():
    table = Table(
        "t", "A | title", ["policy", "a_b"], [["x|y & 50 %", "1.00 ± 2 → −3"], ["$p_0~{z}^2$", MISSING]], "one note"
    )
    assert markdown(table).count("\n| ") == 4 and r"x\|y" in markdown(table) and markdown(table).endswith("one note")
    text = latex(table)
    assert (
        r"x|y \& 50 \% & 1.00 $\pm$ 2 $\rightarrow$ $-$3 \\" in text
        and r"\$p\_0\textasciitilde{}\{z\}\textasciicircum{}2\$" in text
    )
    assert list(csv.reader(csv_text(table).splitlines())) == [table.head, *table.body]


def test_a_short_table_has_the_same_numbers_without_intervals_and_details():
    head = ["policy", "mind (n = 3)", "average", "bad format %", "parse failures %", "coverage %", "seeds"]
    table = Table(
        "t", "T", head, [["ours", "60.00 ± 1.00 [50.00, 70.00]", "+1.00 [−2.00, 3.00] (1)", "1", "2", "3", "4"]]
    )
    assert short(table).head == head[:3] and short(table).body == [["ours", "60.00 ± 1.00", "+1.00 (1)"]]
    assert r"ours & 60.00 $\pm$ 1.00 & +1.00 (1) \\" in latex(short(table))


def test_several_generation_seeds_show_their_spread():
    rows = result_rows([replace(row, value=float(row.seed)) for row in scores("ours", "mind", 10, 0.5, seeds=(0, 1))])
    assert rows[0].seeds == (0, 1) and rows[0].n == 10
    assert cell_text(rows[0]).startswith("50.00 ± 70.71 [")
    assert cell_text(None) == MISSING == cell_text(replace(rows[0], accuracy=None))


def test_a_line_of_comparisons_has_its_p_among_all_and_what_so_many_rows_would_show():
    """By Holm: 0.01 x 4, 0.02 x 3, then 0.03 x 2. Found in four cases of five: (1.96 + 0.84) / 1.96 of half a width
    of 10 points."""
    lines = compared([Paired(0.1, 0.0, 0.2, p_value, 50, 50) for p_value in (0.03, 0.01, 0.9, 0.02)])
    cells = [dict(zip(COMPARED, line, strict=True)) for line in lines]
    assert [line["p (Holm)"] for line in cells] == ["0.0600", "0.0400", "0.9000", "0.0600"]
    assert [line["p"] for line in cells] == ["0.0300", "0.0100", "0.9000", "0.0200"]
    assert {line["would show"] for line in cells} == {"14.29"}


def test_a_table_without_lines_has_its_head():
    table = Table("empty", "Nothing", ["policy", "n"], [])
    assert csv_text(table) == "policy,n\n" and r"policy & n \\" in latex(table)
