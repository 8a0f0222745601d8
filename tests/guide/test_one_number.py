"""The page that follows one number: what it names exists, and its arithmetic can be repeated from what it shows."""

import importlib
import json
import re
import statistics

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.guide.group import advantages
from alignxplore.guide.one_number import OneNumberOptions, numbers_of, place, write_one_number
from alignxplore.guide.site import tracked
from alignxplore.prompts import parse_answer
from alignxplore.rl.chain import Generation, Group, Prompt, Rollout
from alignxplore.rl.credit import stream_returns
from tests import ROOT

PAGE = ROOT / "docs/one-number.md"
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.py):([\w.]+)`")


def test_every_file_and_function_that_the_docs_name_is_there():
    mentions = [
        (path, name)
        for page in tracked()
        if page.startswith("docs/") and page.endswith(".md")
        for path, name in NAMED.findall((ROOT / page).read_text())
    ]
    assert len(mentions) > 15
    for path, name in mentions:
        inside = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for part in name.split("."):
            inside = getattr(inside, part)
        assert callable(inside), f"{path}:{name}"


def test_a_place_is_read_from_the_function_itself():
    assert place(stream_returns) == "`alignxplore/rl/credit.py:stream_returns`"


def test_the_rewards_returns_and_advantages_of_the_page_follow_from_each_other():
    page = PAGE.read_text()
    rows = re.findall(r"^\| (\d+)( \(drawn\))? \| ([\d.]+) \| ([\d.]+) \| (-?[\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 8
    drawn, other = (
        float(re.search(pattern, page)[1])
        for pattern in (r"mean\(stage 2\) = r \+ ([\d.]+)", r"0\.5 .*= r \+ ([\d.]+)")
    )
    returns = [float(total) for *_, total, _ in rows]
    for _, is_drawn, reward, total, advantage in rows:
        bonus = drawn if is_drawn else other
        assert float(total) == pytest.approx(float(reward) + bonus if float(reward) else 0, abs=2e-4)
        z = (float(total) - statistics.mean(returns)) / statistics.stdev(returns)
        assert float(advantage) == pytest.approx(z, abs=5e-3)


def test_the_judgement_and_the_cell_of_the_page_agree():
    page = PAGE.read_text()
    first, second = map(float, re.findall(r"^\| .* \| .* \| (0\.\d{4}) \|$", page.partition("## 9")[2], re.MULTILINE))
    p, again = (float(re.search(pattern, page)[1]) for pattern in (r"p = ([\d.]+) \(", r"vLLM, p is ([\d.]+)\.\n"))
    assert p == pytest.approx((first + second) / 2, abs=1e-4) == pytest.approx(again, abs=1e-3)
    accuracy = float(re.search(r'"accuracy": ([\d.]+)', page)[1])
    right, bad, n = map(int, re.search(r"Of (\d+) such rows (\d+) are right\. (\d+)", page).group(2, 3, 1))
    assert (right + bad / 2) / n == pytest.approx(accuracy)
    assert f"**{100 * accuracy:.1f} [" in page


def test_advantages_are_of_those_alone_that_are_trained_on():
    answer = parse_answer("<think>a</think>b")
    group = Group(0, None, Prompt([1], 0))
    for total in (1.0, None, 0.0):
        group.rollouts.append(Rollout(Generation([2], None, "", ()), answer, 0, 0, total=total))
    assert advantages(group) == [pytest.approx(0.7071, abs=1e-3), None, pytest.approx(-0.7071, abs=1e-3)]


def make_run(folder, train):
    rows = [{"chosen": f"film {i}", "rejected": f"other {i}"} for i in range(40)]
    person = {"userid": "331#7", "history": rows, "target": {"chosen": "a", "rejected": "b"}}
    (folder / "data").mkdir(parents=True)
    (folder / "data/movielens_upi.jsonl").write_text(json.dumps(person) + "\n")
    (folder / "data/rl_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train(rows)))
    return folder


@pytest.mark.parametrize(
    ("values", "train", "problem"),
    [
        (
            {"user": "nobody"},
            lambda rows: [{"uid": "u", "history": rows, "mid_position": 20}],
            r"rl_train\.jsonl: no user 'nobody'",
        ),
        ({}, lambda rows: [], r"rl_train\.jsonl: no row in it"),
        ({"person": "x"}, lambda rows: [], r"movielens_upi\.jsonl: no person 'x'"),
    ],
)
def test_who_is_not_there_is_named(tmp_path, values, train, problem):
    run = make_run(tmp_path / "run", train)
    with pytest.raises(UserError, match=problem):
        write_one_number(OneNumberOptions(run=run, out=tmp_path / "page.md", **values))


def test_a_run_without_the_score_is_named(tmp_path):
    run = make_run(tmp_path / "run", lambda rows: [])
    (run / "eval").mkdir()
    (run / "eval/scores.jsonl").write_text("")
    (run / "eval/results.json").write_text("[]")
    (benchmark,) = load_benchmarks([str(run / "data/movielens_upi.jsonl")])
    with pytest.raises(UserError, match="no score of sft\\+rl by judge for '331#7'; let the quick start finish"):
        numbers_of(run, benchmark, benchmark.records[0])
