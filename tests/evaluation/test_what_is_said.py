"""What is said of results that are not there, of rows that cannot be compared, and of summaries in bad format."""

import logging

import pytest

from alignxplore.command import _parser
from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import EvaluationArguments, GenerationArguments
from alignxplore.evaluation.comparisons import CompareOptions, compare_rows
from alignxplore.evaluation.generation import generate
from alignxplore.evaluation.report.plots import PlotsOptions, write_plots
from alignxplore.evaluation.report.writing import write
from alignxplore.evaluation.rows import write_scores
from tests.evaluation.made_up import score


def rows(policy, values):
    return [
        score(policy=policy, judge="j", user=f"u{i}", target=f"t{i}", item=f"i{i}", record=f"r{i}", value=v)
        for i, v in enumerate(values)
    ]


def compared(folder, a, b, **options):
    return compare_rows(CompareOptions(report=folder, first=[f"policy={a}"], second=[f"policy={b}"], **options))


def test_a_policy_that_is_not_there_is_named_with_those_that_are(tmp_path):
    write_scores(tmp_path, rows("base", [1, 0]) + rows("ours", [1, 1]))
    with pytest.raises(UserError, match=r"scores.jsonl: no row in it has policy=typo \(--second (?s:.*)base / full"):
        compared(tmp_path, "base", "typo")
    with pytest.raises(UserError, match=r"has judge=none policy=base \(--first and --where\)"):
        compared(tmp_path, "base", "ours", where=["judge=none"])
    assert "| 2 |" in compared(tmp_path, "base", "ours")


def test_a_row_is_not_compared_with_itself(tmp_path):
    write_scores(tmp_path, rows("base", [1, 0]))
    with pytest.raises(UserError, match="--first and --second are the same row, base / full / mind"):
        compared(tmp_path, "base", "base")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"first": ["setting=full"], "where": ["setting=direct"]},
            "--first setting=full contradicts --where setting=direct",
        ),
        ({"second": ["judge=a"], "where": ["judge=b"]}, "--second judge=a contradicts --where judge=b"),
        ({"first": ["setting=full", "setting=none"]}, "setting is given twice; give it one value"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        CompareOptions(report=tmp_path, **fields)
    CompareOptions(report=tmp_path, first=["setting=full"], where=["setting=full"])


def test_of_a_single_user_only_the_difference_is_known(tmp_path):
    write_scores(tmp_path, rows("base", [0]) + rows("ours", [1]))
    table = compared(tmp_path, "base", "ours")
    assert "nan" not in table and "1.0000" not in table and "| 1 | +100.00 |" in table


def test_a_folder_that_is_not_scored_says_so(tmp_path):
    for work in (
        lambda: write(tmp_path),
        lambda: write_plots(PlotsOptions(results=tmp_path, out=tmp_path / "plots")),
        lambda: compared(tmp_path, "a", "b"),
    ):
        with pytest.raises(UserError, match=r"nothing is scored here \(scores.jsonl: no such file\); run evaluate.py"):
            work()


def test_the_help_of_a_flag_that_turns_off_says_so():
    text = " ".join(_parser(EvaluationArguments, None).format_help().split())
    assert "--no_direct, --no-direct turn off --direct: do not also let each downstream model read" in text


@pytest.mark.parametrize(("text", "share"), [("!!!!" * 32, 100), ("<think>\nwhy\n</think>\n\nfilms", 0)])
async def test_the_share_of_bad_format_is_said_and_warned_of(
    fake_server, say, tokenizer, record, benchmark_file, tmp_path, caplog, text, share
):
    caplog.set_level(logging.INFO)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    file = benchmark_file("own", [record(f"u{i}") for i in range(4)])
    async with fake_server(lambda body: say(text), max_model_len=16384) as server:
        model = [f"ours={server.url}#{tmp_path / 'tokenizer'}"]
        await generate(GenerationArguments(model=model, data=[f"own={file}"], settings=["full"], out=str(tmp_path)))
    (entry,) = [x for x in caplog.records if "summaries are in bad format" in x.getMessage()]
    assert f"of 4 summaries are in bad format ({share} %)" in entry.getMessage()
    assert (entry.levelno == logging.WARNING) == (share > 50)
    assert ("One of them begins: '!!!!" in entry.getMessage()) == (share > 50)
