"""The study of seeds: what is pooled, whose rows belong together, and RL as in the run itself but for its rewards."""

import json
import random
import runpy
from dataclasses import replace

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation.report.tables import MISSING
from alignxplore.evaluation.rows import read_scores, write_scores
from alignxplore.quickstart import films
from alignxplore.records import person_of
from alignxplore.statistics import estimate
from tests import ROOT
from tests.evaluation.made_up import score

STUDY = runpy.run_path(str(ROOT / "studies/pool_seeds.py"))
PERSONS, WINDOWS = 30, 5


def write_run(folder, policies, seed):
    """A run's scores; `policies`: policy → accuracy that it has on average."""
    rng, rows = random.Random(seed), []
    for policy, right in policies.items():
        settings = {"content tally": ("direct",), "chance": ("bound",)}.get(policy, ("full", "streaming"))
        for setting in settings:
            for user in range(PERSONS):
                for window in range(WINDOWS):
                    value = 0.5 if policy == "untrained" else float(rng.random() < right)
                    named = {"policy": policy, "setting": setting, "judge": "j" if len(settings) > 1 else "none"}
                    named |= {"user": f"{user}#{window}", "target": f"{seed} {user} {window}"}
                    named |= {"record": named["target"], "item": f"film {seed} {user} {window}"}
                    rows.append(score(**named, value=None if (policy, user, window) == ("sft", 0, 0) else value))
    write_scores(folder, rows)


@pytest.fixture
def pooled(tmp_path):
    """What is written of two runs and a control."""
    for seed in (1, 2):
        write_run(
            tmp_path / f"run{seed}/eval", {"content tally": 0.8, "untrained": 0, "sft": 0.6, "sft+rl": 0.74}, seed
        )
    write_run(tmp_path / "control", {"shuffled": 0.6}, 1)
    options = STUDY["SeedsOptions"](
        runs=[tmp_path / "run1", tmp_path / "run2"], out=tmp_path / "out", control=f"shuffled={tmp_path}/control"
    )
    (tmp_path / "out").mkdir()
    assert STUDY["pool"](options).endswith("out/report.md")
    return json.loads((tmp_path / "out/results.json").read_text()), (tmp_path / "out/report.md").read_text()


def test_runs_are_pooled_and_a_person_in_two_of_them_is_one_cluster(pooled):
    row_of = {(row["policy"], row["setting"]): row for row in pooled[0]["accuracy"]}
    trained = row_of["sft+rl", "full"]
    assert (trained["n"], trained["clusters"], len(trained["runs"])) == (2 * PERSONS * WINDOWS, PERSONS, 2)
    assert trained["mean"] == pytest.approx(sum(trained["runs"]) / 2) and trained["low"] < 0.74 < trained["high"]
    assert row_of["sft", "full"]["n"] == 2 * (PERSONS * WINDOWS - 1), "a failed judgement is no row"
    assert row_of["shuffled", "full"]["n"] == PERSONS * WINDOWS


def test_rows_without_a_model_are_over_persons_and_films_alone(pooled, tmp_path):
    (tally,) = [row for row in pooled[0]["accuracy"] if row["policy"] == "content tally"]
    rows = [row for seed in (1, 2) for row in read_scores(tmp_path / f"run{seed}/eval") if row.judge == "none"]
    persons = [person_of(row.user) for row in rows]
    right = estimate([row.value for row in rows], persons, [row.item for row in rows])
    assert (tally["low"], tally["high"]) == pytest.approx((right.low, right.high), abs=2e-3), "order of persons"
    assert "without a model over persons and films" in pooled[1]


def test_differences_are_paired_on_the_rows_that_both_have(pooled):
    row_of = {(row["policy"][0], row["minus"][0], row["policy"][1]): row for row in pooled[0]["paired"]}
    assert set(row_of) == {
        *((a, b, s) for a, b in [*STUDY["COMPARED"], ("shuffled", "sft")] for s in ("full", "streaming")),
        ("sft+rl", "sft+rl", "streaming"),
    }
    gained = row_of["sft+rl", "sft", "full"]
    assert gained["n"] == 2 * (PERSONS * WINDOWS - 1) and gained["difference"] > 0.08 and len(gained["runs"]) == 2
    widest = max(one["high"] - one["low"] for one in gained["runs"])
    assert gained["high"] - gained["low"] > widest, "two runs say little of others"
    assert row_of["shuffled", "sft", "full"]["n"] == PERSONS * WINDOWS - 1
    assert row_of["shuffled", "sft", "full"]["low"] < 0 < row_of["shuffled", "sft", "full"]["high"]


def test_the_report_says_how_far_it_is_to_the_tally(pooled):
    rows = {(row["policy"], row["setting"]): row["mean"] for row in pooled[0]["accuracy"]}
    way = 100 * (rows["sft+rl", "full"] - 0.5) / (rows["content tally", "direct"] - 0.5)
    lines = [line.split(" | ") for line in pooled[1].splitlines()]
    (line,) = [line for line in lines if line[0] == "| sft+rl" and line[1] == "full" and len(line) == 7]
    assert line[5] == f"{way:.0f} %"
    assert any(line[0] == "| shuffled (full)" and line[1] == "sft (full)" for line in lines)


def test_runs_that_cannot_be_pooled_are_refused(tmp_path):
    options = STUDY["SeedsOptions"]
    with pytest.raises(ValueError, match="run1 twice"):
        options(runs=[tmp_path / "run1", tmp_path / "x/../run1"], out=tmp_path)
    write_run(tmp_path / "run1/eval", {"untrained": 0, "sft+rl": 0.7}, 1)
    with pytest.raises(UserError, match="run1: no scores of sft; is it a finished quick start?"):
        STUDY["pool"](options(runs=[tmp_path / "run1"], out=tmp_path))


def test_another_protocol_is_left_out_and_a_tally_by_chance_has_no_way_to_it(tmp_path):
    write_run(tmp_path / "run/eval", {"untrained": 0, "sft": 0.6, "sft+rl": 0.7}, 1)
    rows = list(read_scores(tmp_path / "run/eval"))
    tally = [score(policy="content tally", setting="direct", judge="none", user="1", value=0.5)]
    write_scores(tmp_path / "run/eval", [*rows, *(replace(row, protocol="paper", value=0.0) for row in rows), *tally])
    STUDY["pool"](STUDY["SeedsOptions"](runs=[tmp_path / "run"], out=tmp_path))
    row_of = {
        (row["policy"], row["setting"]): row for row in json.loads((tmp_path / "results.json").read_text())["accuracy"]
    }
    assert row_of["sft", "full"]["mean"] > 0.4
    (line,) = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| sft | full")]
    assert line.split(" | ")[5] == MISSING


def test_the_control_is_the_same_run_with_other_rewards(tmp_path):
    study = runpy.run_path(str(ROOT / "studies/films_seeds.py"))
    run, out = films.FilmSettings.read({"SEED": "3"}, out=tmp_path / "run"), tmp_path / "out"
    settings = study["FilmSeedsSettings"].read({}, out=out)
    step_of = {step.name: step for step in study["steps"](settings, [run])}
    own = {step.name: step for step in films.steps(run)}["rl"]
    (shuffled,), (trained,) = step_of["rl"].commands, own.commands
    assert shuffled.words == (*trained.words, "streaming.shuffle_rewards=true")
    assert dict(shuffled.environment) == dict(trained.environment) | {"OUT": f"{out}/rl"}
    assert [server.name for server in step_of["rl"].servers] == [server.name for server in own.servers]
