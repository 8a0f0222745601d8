"""The lists of the quick start: every file that a command reads is made by a step before it; groups share nobody; the
models of a finished run are evaluated on another edition as they were on their own."""

import os
import subprocess

import pytest

from alignxplore.datasets import get
from alignxplore.evaluation.benchmarks import Benchmark, shown_history
from alignxplore.quickstart import films, other, world
from alignxplore.quickstart.other import OtherSettings
from alignxplore.quickstart.steps import order
from alignxplore.records import Interaction, UserRecord
from tests import ROOT


def listed(kind, out):
    """The settings and steps of a list that goes into `out`."""
    chosen = {"films": films.FilmSettings, "world": world.WorldSettings}[kind].read({}, out=out)
    return chosen, {"films": films.steps, "world": world.steps}[kind](chosen)


def paths(command, out):
    """(files that it reads, files that it writes) under `out`."""
    words = list(command.words)
    pairs = [(before, word) for before, word in zip(["", *words], words)]
    pairs += [(name, value or "") for name, value in command.environment]
    inside = [(before, word[word.index(f"{out}/") :]) for before, word in pairs if f"{out}/" in word]
    inside += [(before, word) for before, word in pairs if word == str(out)]
    made = [path for before, path in inside if before in ("--out", "--output_dir", "OUT")]
    if words[0] == "cp":
        made = [words[-1]]
    return [path for before, path in inside if path not in made and before != "--log"], made


def not_made(steps, out, made=()):
    """(step, file) of what is read before it is made."""
    made, missing = list(made), []
    for step in steps:
        for server in step.servers:
            missing += [(step.name, path) for path in paths(server.command, out)[0] if not stands(path, made)]
        for row in step.rows:
            missing += [(step.name, path) for one in row for path in paths(one, out)[0] if not stands(path, made)]
            made += [path for one in row for path in paths(one, out)[1]]
    return missing


def stands(path, made):
    return any(path == one or path.startswith(f"{one}/") for one in made)


@pytest.mark.parametrize("kind", ["films", "world"])
def test_what_a_step_reads_is_made_before(kind, tmp_path):
    _, steps = listed(kind, tmp_path)
    assert not_made(steps, tmp_path) == []
    files = [path for step in steps for row in step.rows for one in row for path in paths(one, tmp_path)[0]]
    assert len(files) > 15 and not_made(steps[1:], tmp_path) != []
    written = [path for step in steps for row in step.rows for one in row for path in paths(one, tmp_path)[1]]
    assert str(tmp_path) in written, "results.json and the report are copied there"
    assert list(order(steps)) == [step.name for step in steps] and len(steps) >= 9


@pytest.mark.parametrize("kind", ["films", "world"])
def test_rl_is_served_its_judges_and_every_policy_is_scored_by_both(kind, tmp_path):
    settings, steps = listed(kind, tmp_path)
    step_of = {step.name: step for step in steps}
    (rl,) = step_of["rl"].rows[-1]
    variables = dict(rl.environment)
    assert (variables["JUDGES"], variables["STEPS"], variables["LR"]) == (
        "judge={judge}",
        str(settings.rl_steps),
        settings.rl_lr,
    )
    assert variables.get("VAL_JUDGES") == {"films": "judge2={judge2}", "world": None}[kind]
    assert [server.name for server in step_of["rl"].servers] == {"films": ["judge", "judge2"], "world": ["judge"]}[
        kind
    ]
    (summaries,), (scores,) = step_of["summaries"].rows[-1], step_of["scores"].rows[-1]
    at = summaries.words.index("--model") + 1
    models = ["models/base", "models/sft", "rl/model"]
    policies = [f"{name}={tmp_path / model}" for name, model in zip(("untrained", "sft", "sft+rl"), models)]
    assert list(summaries.words[at : at + 3]) == policies
    at = scores.words.index("--judge") + 1
    assert list(scores.words[at : at + 2]) == [f"{name}={tmp_path}/models/{name}" for name in ("judge", "judge2")]
    assert list(scores.words[scores.words.index("--policies") + 1 :]) == ["untrained", "sft", "sft+rl"]


def test_groups_share_nobody_and_each_seed_has_others():
    groups = {name for name, _ in films.GROUPS}
    tests = []
    for seed in range(1, 6):
        ranges = films.persons(seed)
        assert set(ranges) == groups == {"policy", "judge", "judge2", "val", "test"}
        bounds = sorted(ranges.values())
        assert bounds[0][0] == 0 and bounds[-1][1] == 1
        assert all(before[1] == after[0] for before, after in zip(bounds, bounds[1:]))
        tests.append(ranges["test"])
    assert len(set(tests)) == 5 and films.persons(6) == films.persons(1)


def test_a_test_row_shows_as_many_choices_as_the_models_learn_from(tmp_path):
    _, steps = listed("films", tmp_path)
    built = next(step for step in steps if step.name == "data").lines(tmp_path)
    lengths = {line.split()[-1].split("/")[-1]: line.split("--length ")[1].split()[0] for line in built}
    lessons = {f"{name}.jsonl": "12" for name in ("policy", "judge", "judge2")}
    targets = dict.fromkeys(("rl_train_windows.jsonl", "rl_val_windows.jsonl"), "25")  # seven more choices to judge by
    assert lengths == lessons | targets | {films.BENCHMARK: "18", "synthesis.jsonl": "26"}
    (rl,) = next(step for step in steps if step.name == "rl").rows[-1]
    assert dict(rl.environment)["TARGETS"] == "8" and "streaming.val_targets=8" in rl.words
    record = UserRecord("a", (Interaction("x", "y"),) * 18, Interaction("x", "y"))
    assert len(shown_history(Benchmark("movielens", get("movielens").task, (record,), tmp_path), record)) == 12


def test_synthesis_runs_beside_the_reader_and_rl_waits_for_every_model(tmp_path):
    _, steps = listed("films", tmp_path)
    before = order(steps)
    assert before["synthesis"] == ("judge",) and before["sft"] == ("reader", "synthesis")
    assert set(before["rl"]) == {"sft", "judge2", "rl_data"} and before["summaries"] == ("rl",)


def test_what_the_policy_learns_from_is_of_its_own_persons(tmp_path):
    settings, steps = listed("films", tmp_path)
    built = next(step for step in steps if step.name == "data").lines(tmp_path)
    whose = {line.split()[-1].split("/")[-1]: line.split("--persons ")[1].split()[:2] for line in built}
    ranges = {group: [str(bound) for bound in bounds] for group, bounds in films.persons(settings.seed).items()}
    of = dict.fromkeys(("policy.jsonl", "synthesis.jsonl", "rl_train_windows.jsonl"), "policy")
    of |= {"judge.jsonl": "judge", "judge2.jsonl": "judge2", "rl_val_windows.jsonl": "val", films.BENCHMARK: "test"}
    assert whose == {file: ranges[group] for file, group in of.items()}


def test_another_edition_is_evaluated_as_the_own_one(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_WINDOWS", "9")  # the run's own choices decide
    settings = OtherSettings.of(trained.out, tmp_path / "ml-1m")
    assert settings.trained == trained and settings.out == trained.out / "other"
    assert settings.deciding() == {"RAW": str(tmp_path / "ml-1m"), "RATINGS": settings.ratings}
    steps, own = other.steps(settings), {step.name: step for step in films.steps(trained)}
    made = [path for step in own.values() for row in step.rows for one in row for path in paths(one, trained.out)[1]]
    own_files = [path for path in made if "/models/" in path or "/rl" in path or path.endswith("data/policy.jsonl")]
    assert not_made(steps, trained.out, own_files) == [], "its models, and whose choices item-kNN learns from"
    lines = {step.name: step.lines(trained.out)[-1] for step in steps}
    assert list(lines) == ["data", "summaries", "scores", "table"]
    for name in ("summaries", "scores"):
        moved = own[name].lines(trained.out)[-1].replace('"$OUT"/eval', '"$OUT"/other/eval')
        ids = {"scores": " --training_ids others"}.get(name, "")
        assert lines[name] == moved.replace('"$OUT"/data/movielens', '"$OUT"/other/data/movielens') + ids
    before = own["data"].lines(trained.out)[-1].split()
    at = before.index("--persons")
    anybody = [*before[:at], *before[at + 3 :]]
    anybody[anybody.index("--raw") + 1] = str(tmp_path / "ml-1m")
    assert lines["data"].split() == [*anybody[:-1], '"$OUT"/other/data/movielens_upi.jsonl']
    assert anybody[anybody.index("--users") + 1] == "250"
    stated = [command.shown(trained.out) for row in steps[-1].rows for command in row if "statements" in str(command)]
    own_line = next(line for line in own["figures"].lines(trained.out) if "films.statements" in line)
    for name in ("data", "eval", "statements.json"):
        own_line = own_line.replace(f'"$OUT"/{name}', f'"$OUT"/other/{name}')
    assert stated == [own_line], "what summaries state, as of the own test"
    assert lines["table"].endswith(' "$OUT"/other') and '--eval "$OUT"/other/eval ' in lines["table"]


@pytest.mark.parametrize(("file", "size"), [("ratings.csv", 746), ("ratings.dat.gz", 186)])
def test_the_plan_knows_how_long_a_large_edition_takes_to_cut(trained, tmp_path, file, size):
    """28.7 million ratings; the quick start cuts seven files of windows, an evaluation one."""
    (tmp_path / "large").mkdir()
    with (tmp_path / "large" / file).open("wb") as sparse:
        sparse.truncate(size * 10**6)
    small, large = (films.FilmSettings(out=tmp_path / "new", data=raw) for raw in (trained.data, tmp_path / "large"))
    assert films.steps(small)[0].seconds == 9
    assert films.steps(large)[0].seconds == pytest.approx(7 * 58, rel=0.05)
    beside = OtherSettings(out=trained.out / "other", trained=trained, raw=tmp_path / "large", ratings="")
    assert other.steps(beside)[0].seconds == pytest.approx(58, rel=0.1)


def check(out, *more, environment=None):
    command = ["bash", str(ROOT / "quickstart.sh"), "--no-install", "--check", "--out", str(out), *more]
    return subprocess.run(command, cwd=out.parent, capture_output=True, text=True, env=environment)


def test_a_check_of_each_list_says_its_steps_and_writes_nothing(trained, tmp_path):
    for more, first, last, count in (
        ([], "data", "figures", 10),
        (["--world"], "world", "figures", 9),
        (["--evaluate", "ml-1m"], "data", "table", 4),
    ):
        out = trained.out if "--evaluate" in more else tmp_path / "new"
        process = check(out, *more, environment=os.environ | {"SEED": "3"})
        assert process.returncode == 0, process.stderr
        lines = [line for line in process.stdout.splitlines() if line.startswith("-- ")]
        assert lines[0].startswith(f"-- {first}: about") and lines[-1].startswith(f"-- {last}: about")
        assert len(lines) >= count and "nothing was started" in process.stdout
    assert not (tmp_path / "new").exists() and not (trained.out / "other").exists()


def test_the_world_has_no_other_edition(trained):
    process = check(trained.out, "--world", "--evaluate", "ml-1m")
    assert (
        process.returncode == 2
        and "--evaluate: the persons of another edition are for models of films" in process.stderr
    )
