"""The tables: what stands in them, what is missing, and when a difference from the published numbers may be
printed."""

import csv
import json
import random

import pytest

from alignxplore.datasets import PUBLISHED
from alignxplore.evaluation.metrics import result_rows
from alignxplore.evaluation.published import NOT_COMPARABLE, Paper
from alignxplore.evaluation.report import layouts, writing
from alignxplore.evaluation.report.tables import MISSING, Table, cell_text, csv_text, label, latex, markdown
from alignxplore.records import write_json, write_jsonl

JUDGE = "Qwen3-8B (non-thinking)"


def scores(
    policy: str, benchmark: str, n: int, share: float, *, setting="full", judge="qwen", protocol="paper", seeds=(0,)
) -> list[dict]:
    """`n` records, one person each, of which a share is right."""
    rng = random.Random(f"{policy} {benchmark} {setting}")
    return [
        {
            "policy": policy,
            "setting": setting,
            "benchmark": benchmark,
            "judge": judge,
            "protocol": protocol,
            "seed": seed,
            "record": f"r{i}",
            "user": f"u{i}",
            "target": f"t{i}",
            "value": float(rng.random() < share),
            "outcome": "ok",
        }
        for seed in seeds
        for i in range(n)
    ]


def run_of(names: dict | None = None, **sizes: int) -> dict:
    return {
        "benchmarks": {
            name: {"n": n, "target_in_history": 0, "built": None, "hub": f"{PUBLISHED}@abc"}
            for name, n in sizes.items()
        },
        "judges": {"qwen": {"identity": "x", "format": "plain"}},
        "policies": {},
        "versions": {},
        "commit": None,
        "prompt_hashes": {},
        "published_names": names or {"judges": {"qwen": JUDGE}, "policies": {"ours": "AlignXplore+"}},
    }


def column(table: Table, name: str, policy: str) -> str:
    place = next(i for i, head in enumerate(table.head) if head.startswith(name))
    return next(line[place] for line in table.body if line[0] == policy)


def after(table: Table, policy: str) -> list[list[str]]:
    place = next(i for i, line in enumerate(table.body) if line[0] == policy)
    return table.body[place + 1 : place + 3]


def test_a_full_row_of_protocol_paper_stands_beside_the_published_one_with_the_difference():
    rows = result_rows(scores("ours", "friendly_unfriendly", 600, 0.9))
    table = layouts.wide(rows, run_of(friendly_unfriendly=600), "main", "qwen", "paper", Paper())
    published, difference = after(table, "ours")
    assert published[:3] == ["published: AlignXplore+", "full", "86.33"]
    ours = 100 * rows[0]["accuracy"]
    assert difference[2].startswith(f"{ours - 86.33:+.2f} [") and NOT_COMPARABLE not in " ".join(difference)
    assert difference[:2] == ["ours − published", "full"] and layouts.CLUSTERED in table.note
    low, high = (float(x.replace("−", "-")) for x in difference[2].split("[")[1].rstrip("]").split(", "))
    assert low < ours - 86.33 < high and high - low == pytest.approx(
        2 * 1.96 * 100 * (0.09 / 600 + 0.8633 * 0.1367 / 600) ** 0.5, rel=0.1
    )


def built(edition="", protocol="published", min_interactions=2, split="all", taken_out=0) -> dict:
    return {
        "edition": edition,
        "protocol": protocol,
        "min_interactions": min_interactions,
        "split": split,
        "taken_out": taken_out,
    }


@pytest.mark.parametrize(
    "benchmark, n, protocol, how, reason",
    [
        ("friendly_unfriendly", 600, "choice", None, "protocol paper"),
        ("friendly_unfriendly", 200, "paper", None, "n = 200, the published table 600"),
        ("friendly_unfriendly", 600, "paper", built(protocol="matched"), "other negatives (matched)"),
        (
            "friendly_unfriendly",
            600,
            "paper",
            built(taken_out=271),
            "271 repeats and answers were taken out of the histories",
        ),
        ("hicupid", 600, "paper", None, "is not published"),
        ("alignx", 3000, "paper", built(), "the published conversion of alignx is not public"),
        ("personamem", 5000, "paper", built("v2"), "the published conversion of personamem is not public"),
        (
            "movielens",
            3000,
            "paper",
            built("ml-1m", min_interactions=17, split="test"),
            "built from ml-1m, the published one from ml-32m",
        ),
        ("movielens", 3000, "paper", built(None, min_interactions=17, split="test"), "files of an unknown edition"),
        (
            "movielens",
            3000,
            "paper",
            built("ml-32m", split="test"),
            "at least 2 interactions, the published one of split test with 17",
        ),
        ("movielens", 3000, "paper", built("ml-32m", min_interactions=17), "of split all"),
    ],
)
def test_anything_else_is_not_comparable_and_says_why(benchmark, n, protocol, how, reason):
    rows = result_rows(scores("ours", benchmark, n, 0.9, protocol=protocol))
    run = run_of(**{benchmark: n})
    run["benchmarks"][benchmark]["built"] = how
    table = layouts.wide(rows, run, "main", "qwen", protocol, Paper())
    assert after(table, "ours")[1][2] == NOT_COMPARABLE and reason in table.note


def test_amazon_may_have_its_two_more_rows():
    row = result_rows(scores("ours", "amazon", 3000, 0.8))[0]
    run = run_of(amazon=3000)
    run["benchmarks"]["amazon"]["built"] = built("Books_5 of 2018", min_interactions=17, split="test")
    assert Paper().why_not(row, run) is None
    assert Paper().why_not(row | {"n": 2900}, run) is not None


@pytest.mark.parametrize(
    "setting, stages, sampling, window, reason",
    [
        ("streaming", 2, {}, 16384, None),
        ("full", 1, {}, 16384, None),
        ("streaming", 3, {}, 16384, "3 stages for 2"),
        (
            "full",
            1,
            {"temperature": 0.0, "max_tokens": 128},
            16384,
            "temperature 0.0 for 0.6, max_tokens 128 for 4096",
        ),
        ("full", 1, {}, 40960, "a window of 40960 for 16384"),
        ("streaming", 3, {}, 8192, "3 stages for 2, a window of 8192 for 16384"),
    ],
)
def test_summaries_that_were_written_in_another_way_are_not_compared(setting, stages, sampling, window, reason):
    row = result_rows(scores("ours", "mind", 3000, 0.8, setting=setting))[0]
    run = run_of(mind=3000)
    published = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4096, "seed": 0, "form": "think"}
    run["policies"]["ours"] = {
        "sets": {
            f"mind.{setting}.s0": {"stages": stages, "sampling": published | sampling, "window": window},
            "amazon.streaming.s0": {"stages": 5, "sampling": published, "window": 512},
        }
    }
    said = Paper().why_not(row, run)
    assert said is None if reason is None else reason in said


@pytest.mark.parametrize("benchmark, n", [("mind", 3000), ("student_phd", 600)])
def test_who_read_raw_histories_stands_beside_the_published_reader_and_is_not_compared(benchmark, n):
    rows, run = result_rows(scores("qwen", benchmark, n, 0.6, setting="direct")), run_of(**{benchmark: n})
    table = layouts.wide(rows, run, "main", "qwen", "paper", Paper())
    published, difference = after(table, "qwen")
    assert (
        published[0] == f"published: {JUDGE}"
        and published[2] != MISSING
        and difference[:3] == ["qwen − published", "direct", NOT_COMPARABLE]
    )
    assert (
        "how much of a history the published readers of raw histories were shown" in table.note
        and layouts.CLUSTERED not in table.note
    )
    assert Paper().why_not(rows[0] | {"setting": "full"}, run) is None


@pytest.mark.parametrize(
    "about, reason",
    [
        ({"built": None, "hub": f"{PUBLISHED}@abc"}, None),
        ({"built": built(), "hub": None}, None),
        ({"built": None, "hub": None}, "nothing shows that the file of student_phd is the published one"),
        (
            {"built": None, "hub": f"{PUBLISHED}-mine@abc"},
            "nothing shows that the file of student_phd is the published one",
        ),
    ],
)
def test_a_file_of_which_nothing_is_known_does_not_pass_for_the_published_one(about, reason):
    row, run = result_rows(scores("ours", "student_phd", 600, 0.8))[0], run_of(student_phd=600)
    run["benchmarks"]["student_phd"] = about
    said = Paper().why_not(row, run)
    assert said is None if reason is None else reason in said


def test_where_a_benchmark_file_is_from(tmp_path):
    cached = tmp_path / f"datasets--{PUBLISHED.replace('/', '--')}" / "snapshots" / "0a1b" / "data" / "mind_upi.jsonl"
    for path in (cached, tmp_path / "mind_upi.jsonl"):
        write_jsonl(path, [{}])
    assert writing.built_how(cached) == {"built": None, "hub": f"{PUBLISHED}@0a1b"}
    assert writing.built_how(tmp_path / "mind_upi.jsonl") == {"built": None, "hub": None}


def test_published_rows_are_taken_for_as_clustered_as_ours():
    """Two rows of each person, that agree: half as many independent ones."""
    rows = [
        row | {"user": f"u{i // 2}", "value": float(i // 2 % 10 < 8)}
        for i, row in enumerate(scores("ours", "student_phd", 600, 0.8))
    ]
    (row,) = result_rows(rows)
    assert row["design_effect"] == pytest.approx(2, rel=0.01)
    assert result_rows(scores("ours", "student_phd", 600, 0.8))[0]["design_effect"] == 1
    low, high = (
        float(x.replace("−", "-")) for x in Paper().difference(row, 0.8).split("[")[1].rstrip("]").split(", ")
    )
    assert high - low == pytest.approx(2 * 1.96 * 100 * (2 * 2 * 0.16 / 600) ** 0.5, rel=0.05)


def test_a_sampling_that_the_server_does_not_know_is_not_the_published_one():
    row, run = result_rows(scores("ours", "mind", 3000, 0.8))[0], run_of(mind=3000)
    made = {
        "stages": 1,
        "sampling": {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4096},
        "window": 16384,
    }
    run["policies"]["ours"] = {"sets": {"mind.full.s0": made | {"not_sent": ["chat_template_kwargs", "top_k"]}}}
    assert (
        Paper()
        .why_not(row, run)
        .endswith("were not written as published: without top_k, which its server does not know")
    )


def test_an_unknown_downstream_model_has_no_published_rows_beside_it():
    rows = result_rows(scores("ours", "mind", 50, 0.9))
    run = run_of({"judges": {"qwen": None}, "policies": {"ours": "AlignXplore+"}}, mind=50)
    assert [line[0] for line in layouts.wide(rows, run, "main", "qwen", "paper", Paper()).body] == ["ours"]


def test_published_rows_that_were_not_run_are_there_and_ours_is_missing_not_zero():
    rows = result_rows(scores("ours", "mind", 50, 0.9) + scores("base", "amazon", 50, 0.5))
    table = layouts.wide(rows, run_of(mind=50, amazon=50), "main", "qwen", "paper", Paper())
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
    table = layouts.wide(rows, run_of(names, mind=50), "main", "qwen", "paper", Paper())
    assert [line[0] for line in table.body[:6:3]] == ["qwen", "tallrec"] and after(table, "tallrec")[1][
        0
    ] == "tallrec − published"
    assert after(table, "qwen")[0][:3] == [f"published: {JUDGE}", "direct", "63.03"]
    assert after(table, "tallrec")[0][:3] == ["published: TALLRec", "direct", "81.96"]
    assert len(writing.all_tables(rows, [], run_of(names, mind=50))[0]) == 1
    assert layouts.readers_of_histories([row for row in rows if row["setting"] == "direct"]) == []


def test_a_model_that_is_published_as_writer_and_reader_lends_no_row_to_another_downstream_model():
    names = {"judges": {"qwen": None}, "policies": {"gpt": "GPT-OSS-20B"}}
    rows = result_rows(scores("gpt", "mind", 50, 0.9) + scores("qwen", "mind", 50, 0.6, setting="direct"))
    assert [line[0] for line in layouts.wide(rows, run_of(names, mind=50), "main", "qwen", "paper", Paper()).body] == [
        "qwen",
        "gpt",
    ]
    names["judges"]["qwen"] = JUDGE
    table = layouts.wide(rows, run_of(names, mind=50), "main", "qwen", "paper", Paper())
    assert after(table, "gpt")[0][:3] == ["published: GPT-OSS-20B", "full", "64.16"]  # not its 66.43 as its own reader


def test_the_average_is_that_of_the_cells():
    rows = result_rows(scores("ours", "mind", 50, 0.9) + scores("ours", "amazon", 50, 0.5))
    table = layouts.wide(rows, run_of(mind=50, amazon=50), "main", "qwen", "paper", Paper())
    assert column(table, "average", "ours") == f"{100 * (rows[0]['accuracy'] + rows[1]['accuracy']) / 2:.2f}"
    assert after(table, "ours")[0][4] == f"{(71.36 + 86.39) / 2:.2f}"


def test_a_benchmark_that_the_published_table_lacks_is_in_no_average():
    names = {"judges": {"qwen": "GPT-OSS-20B"}, "policies": {"ours": "AlignXplore+"}}
    rows = result_rows(scores("ours", "mind", 50, 0.9) + scores("ours", "hicupid", 50, 0.1))
    table = layouts.wide(rows, run_of(names, mind=50, hicupid=50), "main", "qwen", "paper", Paper())
    assert (
        column(table, "average", "ours") == f"{100 * rows[0]['accuracy']:.2f}"
        and column(table, "HiCUPID", "ours") != MISSING
    )
    assert after(table, "ours")[0][4] == after(table, "ours")[0][2] != MISSING
    assert "The averages are without HiCUPID, which the published table does not have." in table.note
    main = layouts.wide(rows, run_of(mind=50, hicupid=50), "main", "qwen", "paper", Paper())
    assert (
        column(main, "average", "ours") == f"{50 * (rows[0]['accuracy'] + rows[1]['accuracy']):.2f}"
        and "averages" not in main.note
    )


def test_written_answers_have_a_table_of_their_own():
    rated = [
        row
        | {
            "win": 0.5,
            "tie": 0.25,
            "lose": 0.25,
            "bleu": 0.1,
            "rouge_l": 0.2,
            "outcome": "parse_failure" if i == 0 else "ok",
        }
        for i, row in enumerate(scores("ours", "hicupid", 4, 1.0))
    ]
    rows = result_rows(rated + scores("ours", "mind", 4, 1.0))
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
        row | {"outcome": "parse_failure" if row["record"] == "r0" else "ok"}
        for row in scores("ours", "mind", 4, 1.0, seeds=(0, 1))
    ]
    table = layouts.compact(result_rows(rows), "mind", "paper")
    assert table.head[-4:] == list(layouts.WORST) and table.body[0][-4:] == ["0.00", "25.00", "100.00", "2"]


def test_a_benchmark_without_a_number_keeps_its_column_and_leaves_no_average():
    rows = result_rows(scores("ours", "mind", 50, 0.9) + scores("ours", "hicupid", 50, 0.9, protocol="choice"))
    table = layouts.wide(rows, run_of(mind=50, hicupid=50), "main", "qwen", "paper", Paper())
    assert [column(table, name, "ours") for name in ("HiCUPID", "average")] == [MISSING, MISSING]
    assert all(len(line) == len(table.head) for line in table.body)
    only_hicupid = [row for row in rows if row["benchmark"] == "hicupid"]
    assert layouts.wide(only_hicupid, run_of(hicupid=50), "main", "qwen", "paper", Paper()) is None


def test_names_are_matched_by_hand_by_name_and_by_hub_id():
    paper = Paper()
    assert paper.match("ours", "0123abcd", {"ours": "AlignXplore+"}, plain=False) == "AlignXplore+"
    assert paper.match("gpt-oss-20b", "http://host/v1@main", {}, plain=False) == "GPT-OSS-20B"
    assert paper.match("q", "0123abcd", {"q": "qwen3-8b-non-thinking"}, plain=False) == JUDGE
    assert [paper.match("q", "Qwen/Qwen3-8B@main", {}, plain=plain) for plain in (False, True)] == [
        "Qwen3-8B (thinking)",
        JUDGE,
    ]
    assert paper.match("q", "Qwen/Qwen3-32B@main", {}, plain=True) is None  # was not published without reasoning
    assert paper.match("ours", "0123abcd", {}, plain=False) is None
    with pytest.raises(ValueError, match=r"no row 'AlignXplore\+\+'.*AlignXplore\+,"):
        paper.match("ours", "x", {"ours": "AlignXplore++"}, plain=False)


def test_several_generation_seeds_show_their_spread():
    rows = result_rows([row | {"value": float(row["seed"])} for row in scores("ours", "mind", 10, 0.5, seeds=(0, 1))])
    assert rows[0]["seeds"] == [0, 1] and rows[0]["n"] == 10
    assert cell_text(rows[0]).startswith("50.00 ± 70.71 [")
    assert cell_text(None) == MISSING == cell_text(rows[0] | {"accuracy": None})


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
    comparisons = [line[3] for line in layouts.paired_tests(rows, "paper").body]
    assert comparisons == ["e − a", "e − b", "e − c", "e − d"]
    assert len(layouts.paired_tests([row for row in rows if row["policy"] in "abc"], "paper").body) == 3


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


def test_a_report_is_written_from_files_alone(tmp_path):
    rows = [
        row for policy in ("base", "ours") for name in ("mind", "student_phd") for row in scores(policy, name, 20, 0.6)
    ]
    rows += scores("longer", "mind", 20, 0.5, setting="none", judge="none")
    write_jsonl(tmp_path / "scores.jsonl", rows)
    write_json(tmp_path / "results.json", result_rows(rows))
    run = run_of(mind=20, student_phd=20)
    run["benchmarks"]["mind"]["target_in_history"] = 3
    write_json(tmp_path / "run.json", run)
    shown = writing.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert shown in text and "published: AlignXplore+" in shown and "longer" in shown
    assert (
        "could be copied: mind 3 of 20." in text
        and "Paired comparisons" in text
        and "Every number" in text
        and "Commit unknown" in text
    )
    tables = {path.stem for path in tmp_path.glob("table_*.tex")}
    assert {"table_main_qwen_paper", "table_mind_paper", "table_details_paper", "table_paired_paper"} <= tables
    assert tables == {path.stem for path in tmp_path.glob("table_*.csv")}
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(json.loads((tmp_path / "results.json").read_text())) == 5


def test_cross_task_rows_stand_beside_what_was_published_and_are_not_compared(tmp_path):
    rows = [row for name in ("a~to~b", "b~to~a") for row in scores("ours", name, 20, 0.6)]
    write_jsonl(tmp_path / "scores.jsonl", rows)
    write_json(tmp_path / "results.json", result_rows(rows))
    write_json(tmp_path / "run.json", run_of(**{"a~to~b": 20, "b~to~a": 20}))
    shown = writing.write(tmp_path)
    assert "a → b (n = 20)" in shown and "are not public" in shown
    assert "| AlignXplore+ | 74.90 | 51.10 | 63.00 |" in shown and "| TALLRec | 49.90 | 49.80 | 49.85 |" in shown


def test_a_policy_and_a_judge_of_one_name_have_a_row_each():
    """Both are Qwen/Qwen3-8B unless told otherwise."""
    rows = result_rows(scores("qwen", "mind", 20, 0.9) + scores("qwen", "mind", 30, 0.4, setting="direct"))
    table = layouts.compact(rows, "mind", "paper")
    n = table.head.index("n")
    assert [(line[0], line[n]) for line in table.body] == [("qwen", "20"), ("qwen reads the history (direct)", "30")]
    assert [line[1] for line in table.body] == [cell_text(row) for row in rows]
