"""The tables: what stands in them, what is missing, and what stands beside a difference from the published
numbers."""

from dataclasses import replace

import pytest

from alignxplore.evaluation.published import COMPARABLE, Paper
from alignxplore.evaluation.report import layouts, writing
from alignxplore.evaluation.report.paired import paired_tests
from alignxplore.evaluation.report.tables import MISSING, WORST, Table, cell_text, label
from alignxplore.evaluation.results import cells_of, result_rows
from tests.evaluation.made_up import JUDGE, run_of, scores


def column(table: Table, name: str, policy: str) -> str:
    place = next(i for i, head in enumerate(table.head) if head.startswith(name))
    return next(line[place] for line in table.body if line[0] == policy)


def after(table: Table, policy: str) -> list[list[str]]:
    place = next(i for i, line in enumerate(table.body) if line[0] == policy)
    return table.body[place + 1 : place + 3]


def test_a_full_row_of_protocol_paper_stands_beside_the_published_one_with_the_difference():
    rows = result_rows(scores("ours", "friendly_unfriendly", 600, 0.9))
    table = layouts.wide(rows, run_of(friendly_unfriendly=600), "main", "qwen", "paper", Paper(), {})
    published, difference = after(table, "ours")
    assert published[:3] == ["published: AlignXplore+", "full", "86.33"]
    accuracy = 100 * rows[0].accuracy
    assert difference[2].startswith(f"{accuracy - 86.33:+.2f} [") and difference[2].endswith(f"] {COMPARABLE}")
    assert difference[:2] == ["ours − published", "full"] and layouts.CLUSTERED in table.note
    low, high = (float(x.replace("−", "-")) for x in difference[2].split("[")[1].split("]")[0].split(", "))
    assert low < accuracy - 86.33 < high and high - low == pytest.approx(
        2 * 1.96 * 100 * (0.09 / 600 + 0.8633 * 0.1367 / 600) ** 0.5, rel=0.1
    )


def test_beside_each_difference_stands_what_differs_and_below_the_table_what_that_is():
    sizes = {"mind": 50, "friendly_unfriendly": 600, "hicupid": 600}
    rows = result_rows([row for name, n in sizes.items() for row in scores("ours", name, n, 0.9)])
    table = layouts.wide(rows, run_of(**sizes), "main", "qwen", "paper", Paper(), {})
    _, differences = after(table, "ours")
    mind, style, hicupid = (differences[i] for i in (2, 3, 4))
    assert (
        mind.endswith("] (1)") and style.endswith("] comparable") and hicupid.endswith(" (2)") and "[" not in hicupid
    )
    assert (
        "What differs from the published numbers besides the model: (1) n = 50 for 3000 (MIND); (2) how many rows of "
        "HiCUPID were used"
    ) in table.note
    choice = [replace(row, protocol="choice") for row in rows]
    choice_table = layouts.wide(choice, run_of(**sizes), "main", "qwen", "choice", Paper(), {})
    assert [text.split("(")[-1] for text in after(choice_table, "ours")[1][2:5]] == ["1 2)", "2)", "2 3)"]
    assert "(2) protocol choice (both orders) for paper" in choice_table.note


@pytest.mark.parametrize("benchmark, n", [("mind", 3000), ("student_phd", 600)])
def test_who_read_raw_histories_stands_beside_the_published_reader(benchmark, n):
    rows, run = result_rows(scores("qwen", benchmark, n, 0.6, setting="direct")), run_of(**{benchmark: n})
    table = layouts.wide(rows, run, "main", "qwen", "paper", Paper(), {})
    published, difference = after(table, "qwen")
    assert published[0] == f"published: {JUDGE}" and published[2] != MISSING
    assert difference[:2] == ["qwen − published", "direct"] and difference[2].endswith("] (1)")
    assert "(1) how much of a raw history the published readers were shown" in table.note


def test_below_a_line_with_bad_format_stands_what_it_is_when_that_is_wrong():
    bad = [
        replace(row, outcome="bad_format" if row.value else "ok") for row in scores("ours", "mind", 50, 0.9)
    ] + scores("ours", "amazon", 50, 0.9)
    rows = result_rows(bad)
    table = layouts.wide(rows, run_of(mind=50, amazon=50), "main", "qwen", "paper", Paper(), {})
    assert [line[0] for line in table.body[:4]] == [
        "ours",
        "ours, bad format wrong",
        "published: AlignXplore+",
        "ours − published",
    ]
    other = 100 * rows[1].accuracy
    assert (
        table.body[1] == ["ours, bad format wrong", "full", "0.00", f"{other:.2f}", f"{other / 2:.2f}"] + [MISSING] * 4
    )
    good = layouts.wide(rows[1:], run_of(amazon=50), "main", "qwen", "paper", Paper(), {})
    assert "bad format wrong" not in " ".join(line[0] for line in good.body)


def test_an_unknown_downstream_model_has_no_published_rows_beside_it():
    rows = result_rows(scores("ours", "mind", 50, 0.9))
    run = run_of({"judges": {"qwen": None}, "policies": {"ours": "AlignXplore+"}}, mind=50)
    assert [line[0] for line in layouts.wide(rows, run, "main", "qwen", "paper", Paper(), {}).body] == ["ours"]


def test_published_rows_that_were_not_run_are_there_and_ours_is_missing_not_zero():
    rows = result_rows(scores("ours", "mind", 50, 0.9) + scores("base", "amazon", 50, 0.5))
    table = layouts.wide(rows, run_of(mind=50, amazon=50), "main", "qwen", "paper", Paper(), {})
    names = [line[0] for line in table.body]
    assert "published: DeepSeek-R1-671B (not run here)" in names and "published: TALLRec (not run here)" in names
    assert len([name for name in names if name.endswith("(not run here)")]) == 15  # of 16 rows of the main table
    assert "published: AlignXplore+ (not run here)" in names  # streaming
    assert column(table, "Amazon", "ours") == MISSING == column(table, "average", "ours")
    assert [head.split(" (")[0] for head in table.head[2:4]] == ["MIND", "Amazon"]


def test_a_reader_of_raw_histories_stands_in_the_table_of_the_others():
    rows = result_rows(
        scores("ours", "mind", 50, 0.9)
        + scores("qwen", "mind", 50, 0.6, setting="direct")
        + scores("tallrec", "mind", 50, 0.8, setting="direct", judge="tallrec")
    )
    names = {"judges": {"qwen": JUDGE, "tallrec": "TALLRec"}, "policies": {"ours": "AlignXplore+"}}
    assert layouts.readers_of_histories(rows) == ["tallrec"]
    table = layouts.wide(rows, run_of(names, mind=50), "main", "qwen", "paper", Paper(), {})
    assert [line[0] for line in table.body[:6:3]] == ["qwen", "tallrec"] and after(table, "tallrec")[1][
        0
    ] == "tallrec − published"
    assert after(table, "qwen")[0][:3] == [f"published: {JUDGE}", "direct", "63.03"]
    assert after(table, "tallrec")[0][:3] == ["published: TALLRec", "direct", "81.96"]
    assert len(writing.all_tables(rows, [], run_of(names, mind=50))[0]) == 1
    assert layouts.readers_of_histories([row for row in rows if row.setting == "direct"]) == []


def test_a_model_that_is_published_as_writer_and_reader_lends_no_row_to_another_downstream_model():
    names = {"judges": {"qwen": None}, "policies": {"gpt": "GPT-OSS-20B"}}
    rows = result_rows(scores("gpt", "mind", 50, 0.9) + scores("qwen", "mind", 50, 0.6, setting="direct"))
    assert [
        line[0] for line in layouts.wide(rows, run_of(names, mind=50), "main", "qwen", "paper", Paper(), {}).body
    ] == [
        "qwen",
        "gpt",
    ]
    names["judges"]["qwen"] = JUDGE
    table = layouts.wide(rows, run_of(names, mind=50), "main", "qwen", "paper", Paper(), {})
    assert after(table, "gpt")[0][:3] == ["published: GPT-OSS-20B", "full", "64.16"]  # not its 66.43 as its own reader


def test_the_average_is_that_of_the_cells():
    others = [replace(row, user=f"b{row.user}", item=f"b{row.item}") for row in scores("ours", "amazon", 50, 0.5)]
    score_rows = scores("ours", "mind", 50, 0.9) + others
    rows = result_rows(score_rows)
    table = layouts.wide(rows, run_of(mind=50, amazon=50), "main", "qwen", "paper", Paper(), cells_of(score_rows))
    mean, interval = column(table, "average", "ours").split(" ", 1)
    assert mean == f"{100 * (rows[0].accuracy + rows[1].accuracy) / 2:.2f}"
    halves = [100 * (row.ci_high - row.ci_low) / 2 for row in rows]
    low, high = (float(end) for end in interval.strip("[]").split(", "))
    assert (high - low) / 2 == pytest.approx((halves[0] ** 2 + halves[1] ** 2) ** 0.5 / 2, abs=0.01)
    assert (low + high) / 2 == pytest.approx(float(mean), abs=0.01)
    assert after(table, "ours")[0][4] == f"{(71.36 + 86.39) / 2:.2f}"


def test_a_benchmark_that_the_published_table_lacks_is_in_no_average():
    names = {"judges": {"qwen": "GPT-OSS-20B"}, "policies": {"ours": "AlignXplore+"}}
    rows = result_rows(scores("ours", "mind", 50, 0.9) + scores("ours", "hicupid", 50, 0.1))
    table = layouts.wide(rows, run_of(names, mind=50, hicupid=50), "main", "qwen", "paper", Paper(), {})
    assert (
        column(table, "average", "ours") == f"{100 * rows[0].accuracy:.2f}"
        and column(table, "HiCUPID", "ours") != MISSING
    )
    assert after(table, "ours")[0][4] == after(table, "ours")[0][2] != MISSING
    assert "The averages are without HiCUPID, which the published table does not have." in table.note
    main = layouts.wide(rows, run_of(mind=50, hicupid=50), "main", "qwen", "paper", Paper(), {})
    assert (
        column(main, "average", "ours").split(" ")[0] == f"{50 * (rows[0].accuracy + rows[1].accuracy):.2f}"
        and "averages" not in main.note
    )


def test_written_answers_have_a_table_of_their_own():
    parts = {"win": 0.5, "tie": 0.25, "lose": 0.25, "bleu": 0.1, "rouge_l": 0.2}
    ratings = [
        replace(row, measures=parts, outcome="parse_failure" if i == 0 else "ok")
        for i, row in enumerate(scores("ours", "hicupid", 4, 1.0))
    ]
    rows = result_rows(ratings + scores("ours", "mind", 4, 1.0))
    others = {table.name: table for table in writing.all_tables(rows, [], run_of(mind=4, hicupid=4))[1]}
    (line,) = others["hicupid"].body
    assert line[:4] == ["ours", "full", "qwen", "4"] and line[4].startswith("100.00")
    assert dict(zip(others["hicupid"].head[5:], line[5:])) == {
        "wins %": "50.00",
        "ties %": "25.00",
        "losses %": "25.00",
        "BLEU": "10.00",
        "ROUGE-L": "20.00",
        "bad format %": "0.00",
        "parse failures %": "25.00",
        "coverage %": "100.00",
        "seeds": "1",
    }
    assert layouts.written(rows[1:]) is None


def test_the_table_of_one_benchmark_tells_parse_failures_and_seeds():
    rows = [
        replace(row, outcome="parse_failure" if row.record == "r0" else "ok")
        for row in scores("ours", "mind", 4, 1.0, seeds=(0, 1))
    ]
    table = layouts.compact(result_rows(rows), "mind", "paper")
    assert table.head[-4:] == list(WORST) and table.body[0][-4:] == ["0.00", "25.00", "100.00", "2"]


def test_a_benchmark_without_a_number_keeps_its_column_and_leaves_no_average():
    rows = result_rows(scores("ours", "mind", 50, 0.9) + scores("ours", "hicupid", 50, 0.9, protocol="choice"))
    table = layouts.wide(rows, run_of(mind=50, hicupid=50), "main", "qwen", "paper", Paper(), {})
    assert [column(table, name, "ours") for name in ("HiCUPID", "average")] == [MISSING, MISSING]
    assert all(len(line) == len(table.head) for line in table.body)
    only_hicupid = [row for row in rows if row.benchmark == "hicupid"]
    assert layouts.wide(only_hicupid, run_of(hicupid=50), "main", "qwen", "paper", Paper(), {}) is None


def test_labels_of_benchmarks_and_variants():
    assert [label(x) for x in ("student_phd", "mind~swapped20", "world_films~to~mind")] == [
        "Expertise",
        "MIND, swapped20",
        "world_films → MIND",
    ]
    assert [layouts.family(x) for x in ("mind", "mind~swapped20", "a~to~b", "world_films")] == [
        "main",
        None,
        "cross-task",
        "other",
    ]


def test_only_pairs_with_the_last_policy_where_there_are_many():
    rows = [row for policy in "abcde" for row in scores(policy, "mind", 12, 0.5)]
    comparisons = [line[3] for line in paired_tests(rows, "paper").body]
    assert comparisons == ["e − a", "e − b", "e − c", "e − d"]
    assert len(paired_tests([row for row in rows if row.policy in "abc"], "paper").body) == 3


def test_a_policy_and_a_judge_of_one_name_have_a_row_each():
    """Both are Qwen/Qwen3-8B unless told otherwise."""
    rows = result_rows(scores("qwen", "mind", 20, 0.9) + scores("qwen", "mind", 30, 0.4, setting="direct"))
    table = layouts.compact(rows, "mind", "paper")
    n = table.head.index("n")
    assert [(line[0], line[n]) for line in table.body] == [("qwen", "20"), ("qwen reads the history (direct)", "30")]
    assert [line[1] for line in table.body] == [cell_text(row) for row in rows]


def test_a_number_of_each_table_says_what_it_is_of():
    rows = result_rows(scores("ours", "mind", 20, 0.5) + scores("base", "amazon", 20, 0.5))
    run = run_of(mind=20, amazon=20)
    wide_table = layouts.wide(rows, run, "main", "qwen", "paper", Paper(), {})
    for table in (wide_table, layouts.compact(rows, "mind", "paper"), layouts.details(rows, "paper")):
        assert table.cells
        for (line, place), (benchmark, policy, setting, judge, protocol) in table.cells.items():
            [row] = [r for r in rows if (r.benchmark, r.policy) == (benchmark, policy)]
            assert table.body[line][place] == cell_text(row) and table.body[line][0] == policy
            assert (setting, judge, protocol) == (row.setting, row.judge, row.protocol)
