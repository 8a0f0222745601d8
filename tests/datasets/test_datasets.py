"""The registry, the command line, finding published files, and the baselines that never read a history."""

import gzip
import json
import os
import subprocess
import sys
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pytest

from alignxplore.baselines.cues import BASELINES
from alignxplore.benchmark_files import read_users
from alignxplore.command import run_commands
from alignxplore.datasets import DATASETS, get, hub_of, locate, name_of
from alignxplore.datasets.__main__ import COMMANDS, BuildOptions, build_benchmark
from alignxplore.datasets.building import Popularity
from alignxplore.datasets.sidecars import popularity_row, read_manifest, read_popularity, sha256
from alignxplore.records import Interaction, RecordError, UserRecord, write_jsonl
from tests import ROOT


def command(*words: object) -> str | int:
    """`python -m alignxplore.datasets WORDS`: 0, or what it ends with: the sentence, or 2."""
    try:
        run_commands(COMMANDS, "movielens and others", [str(word) for word in words])
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture
def build(latest_small):
    """Build latest-small with the given options; how the command ended."""
    return lambda out, *options: command("build", "movielens", "--raw", latest_small, "--out", out, *options)


def test_published_names_and_the_paper_s_columns():
    published = {
        "mind",
        "amazon",
        "alignx",
        "movielens",
        "personamem",
        "concise_detail",
        "friendly_unfriendly",
        "student_phd",
        "hicupid",
    }
    assert {dataset.name for dataset in DATASETS.values() if dataset.column} == published
    assert {get(name).task for name in ("mind", "amazon", "movielens")} == {"recommendation"}
    assert get("hicupid").task == "generation" and get("student_phd").column == "Expertise"
    with pytest.raises(KeyError, match="no data set named 'movie'; there are: mind"):
        get("movie")


def test_build_is_repeatable_and_the_seed_matters(build, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert build(tmp_path / f"{name}_upi.jsonl", "--users", "12", "--seed", str(seed)) == 0
    a, b, c = ((tmp_path / f"{name}_upi.jsonl").read_bytes() for name in "abc")
    assert a == b != c
    manifest = json.loads((tmp_path / "a_upi.build.json").read_text())
    assert (manifest["edition"], manifest["protocol"], manifest["split"]) == ("ml-latest-small", "published", "all")
    assert manifest["counts"]["users kept"] == 12 and manifest["counts"]["ratings read"] == 100_836
    assert {path.suffix for path in tmp_path.iterdir()} == {".jsonl", ".json"}  # nothing temporary is left
    users = list(read_users(tmp_path / "a_upi.jsonl"))
    counts = read_popularity(tmp_path / "a_upi.jsonl")
    assert [user.user for user in users] == list(counts)
    assert all(pair.query == get("movielens").default_query for pair in users[0].history)


@pytest.fixture
def three(tmp_path) -> dict[str, str]:
    """The three files of an earlier build."""
    files = {f"x{ending}": f"earlier {ending}" for ending in (".jsonl", ".build.json", ".popularity.jsonl")}
    for name, text in files.items():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    return files


def test_a_failed_build_leaves_the_earlier_one_whole(tmp_path, three):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "movies.csv").write_text("movieId,title,genres\n1,A,B\n2,B,C\n")
    (tmp_path / "raw" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4,5\n1,2,4\n")
    message = command("build", "movielens", "--raw", tmp_path / "raw", "--out", tmp_path / "out" / "x.jsonl")
    assert "ratings.csv:3" in str(message)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == three


def test_what_a_killed_build_left_is_swept_by_the_next_one(build, tmp_path):
    """Killed while it wrote: the benchmark and the counts beside it were still under other names."""
    killed = (
        "import os, signal, sys; from alignxplore.datasets import building\n"
        "building.take = lambda examples, job: (os.kill(os.getpid(), signal.SIGKILL) for _ in range(1))\n"
        "import alignxplore.datasets.__main__ as command\n"
        "command.run_commands(command.COMMANDS, '', sys.argv[1:])"
    )
    raw, out = ROOT / "data/movielens/ml-latest-small", tmp_path / "x_upi.jsonl"
    words = [sys.executable, "-c", killed, "build", "movielens", "--users", "9", "--raw", str(raw), "--out", str(out)]
    assert subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == -9
    assert len(list(tmp_path.glob(".*.partial"))) == 2
    assert build(out, "--users", "12") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x_upi.build.json",
        "x_upi.jsonl",
        "x_upi.popularity.jsonl",
    ]


@pytest.mark.parametrize("survived", range(12))
def test_a_build_that_is_killed_never_leaves_a_benchmark_without_its_own_manifest(
    build, tmp_path, three, monkeypatch, survived
):
    """Killed after any of the steps by which files come and go under their final names: nothing that follows is
    done."""
    steps = iter(range(survived))

    def until_killed(step):
        def run(*arguments, **options):
            return step(*arguments, **options) if next(steps, None) is not None else None

        return run

    monkeypatch.setattr("os.replace", until_killed(os.replace))
    monkeypatch.setattr(Path, "unlink", until_killed(Path.unlink))
    with suppress(FileNotFoundError):  # of the file that a step before would have made
        build(tmp_path / "out" / "x.jsonl", "--users", "12")
    monkeypatch.undo()
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.name in three}
    if "x.jsonl" in texts:
        is_whole = (
            texts == three
            or sha256(tmp_path / "out" / "x.jsonl") == json.loads(texts["x.build.json"])["sha256"]
            and len(texts) == 3
        )
        assert is_whole, texts.keys()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--protocol", "reviewed"],
            "movielens has no protocol 'reviewed'; it has published, matched, matched_both, liked",
        ),
        (["--min-interactions", "1"], "must be at least 2"),
        (["--users", "0"], "--users must be at least 1"),
        (["--min-interactions", "99999"], "no user of movielens is left (9,742 films read; "),
    ],
)
def test_options_that_cannot_be_met(build, tmp_path, options, message):
    assert message in str(build(tmp_path / "x.jsonl", *options)) and not list(tmp_path.iterdir())


PACKED = gzip.compress(b'{"asin": "B1", "title": "T"}\n' * 3000, mtime=0)


@pytest.mark.parametrize(
    "name, files, message",
    [
        (
            "amazon",
            {"meta_Toys.json.gz": PACKED[:-20], "Toys_5.json.gz": PACKED},
            "meta_Toys.json.gz: cannot be unpacked to its end",
        ),
        ("alignx", {"alignx.parquet": b"PAR1 and then nothing"}, "alignx.parquet: not a whole Parquet file"),
    ],
)
def test_a_cut_download_is_named(tmp_path, name, files, message):
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    assert message in str(command("build", name, "--raw", tmp_path, "--out", tmp_path / "out" / "x.jsonl"))


def test_check_names_the_raw_files_and_writes_nothing(build, tmp_path, capsys, latest_small):
    assert build(tmp_path / "x.jsonl", "--check") == 0
    output = capsys.readouterr().out
    assert f"would read {latest_small}/ratings.csv" in output and f"would read {latest_small}/movies.csv" in output
    assert not list(tmp_path.iterdir())
    output = command("build", "mind", "--raw", latest_small, "--out", tmp_path / "x.jsonl", "--check")
    assert "no raw files of mind here; expected" in str(output)


def test_a_command_or_a_data_set_that_there_is_not_is_named(capsys):
    assert command("make", "movielens") == command("describe", "movie") == command("build", "movie") == 2
    output = capsys.readouterr().err
    assert (
        "unknown command 'make'; choose from build, import, list, describe" in output
        and "no data set named 'movie'" in output
    )


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"]])
def test_help_speaks_of_the_data_sets(capsys, arguments):
    assert command(*arguments) == 0 and "movielens" in capsys.readouterr().out


@pytest.mark.parametrize("name", DATASETS)
def test_list_and_describe_know_every_data_set(capsys, name):
    assert command("list") == 0 and command("describe", name) == 0
    assert capsys.readouterr().out.count(name) >= 2


@pytest.mark.parametrize(
    "name, problem",
    [
        ("alignx", "cannot be built"),
        ("personamem", "cannot be built"),
        ("movielens", "--split test --users 3000 (ml-32m); the nearest: users and rejected items are drawn otherwise"),
        ("student_phd", "the defaults"),
    ],
)
def test_what_cannot_be_built_as_published_is_said(capsys, name, problem):
    assert command("describe", name) == 0
    assert problem in capsys.readouterr().out.partition("as published")[2]


def test_what_was_done_with_html_stands_in_the_manifest_where_it_changes_a_text(build, tmp_path):
    manifests = {}
    for name, options in (("plain", []), ("kept", ["--markup", "kept"])):
        assert build(tmp_path / f"{name}.jsonl", "--users", "3", *options) == 0
        manifests[name] = json.loads((tmp_path / f"{name}.build.json").read_text())
    assert "markup" not in manifests["plain"] and manifests["kept"]["markup"] == "kept"
    assert manifests["plain"]["sha256"] == manifests["kept"]["sha256"]  # the titles of MovieLens hold none
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "movies.csv").write_text("movieId,title,genres\n1,A &amp; B,Drama\n2,C,War\n3,D,War\n4,E,War\n")
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4,5\n1,2,4,6\n2,3,4,5\n2,4,4,6\n")
    words = ["build", "movielens", "--raw", raw, "--min-interactions", 2, "--out"]
    assert command(*words, tmp_path / "cleaned.jsonl") == 0
    assert json.loads((tmp_path / "cleaned.build.json").read_text())["markup"] == "removed"


def test_where_amazon_s_files_have_gone_is_said(capsys):
    assert command("describe", "amazon") == 0
    output = capsys.readouterr().out
    assert "2018 files are no longer at their old place" in output and "McAuley-Lab/Amazon-Reviews-2023" in output


def test_files_are_found_by_name_in_a_folder(tmp_path):
    for file in ("mind_upi.jsonl", "test_world_films_upi.jsonl", "other.jsonl"):
        (tmp_path / file).write_text("{}\n")
    assert list(locate(tmp_path)) == ["mind", "world_films"]
    assert locate(tmp_path, ["world_films"]) == {"world_films": tmp_path / "test_world_films_upi.jsonl"}
    assert locate(tmp_path / "mind_upi.jsonl") == {"mind": tmp_path / "mind_upi.jsonl"}
    with pytest.raises(FileNotFoundError, match=r"no amazon_upi\.jsonl here; it holds: mind, world_films"):
        locate(tmp_path, ["mind", "amazon"])
    with pytest.raises(FileNotFoundError, match=r"mind_upi\.jsonl: no student_phd_upi\.jsonl here; it holds: mind"):
        locate(tmp_path / "mind_upi.jsonl", ["student_phd"])
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder nor a hub id"):
        locate(tmp_path / "nothing")


def test_a_hub_data_set_is_read_at_its_revision_and_in_its_subfolders(tmp_path, monkeypatch):
    calls, snapshot = [], tmp_path / "datasets--owner--some-set" / "snapshots" / "0a1b"
    for file in ("mind_upi.jsonl", "more/amazon_upi.jsonl", "more/amazon_upi.build.json"):
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file).write_text("{}\n")

    def download(repository, **options):
        calls.append((repository, options["revision"], options["allow_patterns"]))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert locate("owner/some-set@v1") == {
        "mind": snapshot / "mind_upi.jsonl",
        "amazon": snapshot / "more" / "amazon_upi.jsonl",
    }
    assert list(locate("owner/some-set", ["amazon"])) == ["amazon"]
    assert [call[:2] for call in calls] == [("owner/some-set", "v1"), ("owner/some-set", None)]
    files = [
        "data/mind_upi.jsonl",
        "amazon_upi.jsonl",
        "amazon_upi.build.json",
        "amazon_upi.popularity.jsonl",
        "README.md",
    ]
    assert [[file for file in files if any(map(partial(fnmatch, file), patterns))] for *_, patterns in calls] == [
        files[:4],
        files[1:4],
    ]
    assert (
        hub_of(snapshot / "more" / "amazon_upi.jsonl") == "owner/some-set@0a1b"
        and hub_of(tmp_path / "mind_upi.jsonl") is None
    )


@pytest.mark.parametrize(
    "file, name",
    [
        ("runs/data/test_films_upi.jsonl", None),
        ("student_phd_upi.jsonl", "student_phd"),
        ("mind_upi.jsonl", "mind"),
        ("remind_upi.jsonl", None),
        ("mind.matched_upi.jsonl", "mind"),
    ],
)
def test_names_of_files(file, name):
    assert name_of(file) == name


def record(chosen, rejected):
    return UserRecord("u", (Interaction("a", "b"),), Interaction(chosen, rejected))


def test_baselines():
    scores = {name: score(record("long text", "short"), Popularity(1, 2), 0) for name, score in BASELINES.items()}
    assert (scores["longer"], scores["shorter"], scores["popularity"]) == (1, 0, 0)
    assert (
        BASELINES["longer"](record("same", "size"), None, 0)
        == BASELINES["shorter"](record("same", "size"), None, 0)
        == 0.5
    )
    assert BASELINES["popularity"](record("x", "y"), Popularity(3, 3), 0) == 0.5
    assert BASELINES["popularity"](record("x", "y"), None, 0) is None
    rows = [record(f"chosen {number}", "rejected") for number in range(400)]
    random, again, other = ([BASELINES["random"](row, None, seed) for row in rows] for seed in (5, 5, 6))
    assert random == again and abs(sum(random) / 400 - 0.5) < 0.1
    assert 120 < sum(a == b for a, b in zip(random, other, strict=True)) < 280


def test_popularity_of_another_form_is_refused(tmp_path):
    (tmp_path / "x.popularity.jsonl").write_text('{"userid": "1", "chosen": 3}\n')
    with pytest.raises(RecordError, match=r"x\.popularity\.jsonl:1: expected userid, chosen and rejected"):
        read_popularity(tmp_path / "x.jsonl")
    assert read_popularity(tmp_path / "y.jsonl") == {}


def test_popularity_before_the_target_stands_beside_that_over_all_time_where_it_is_known(tmp_path):
    counts = {"dated": Popularity(5, 9, 3, 0), "undated": Popularity(5, 9)}
    write_jsonl(tmp_path / "x.popularity.jsonl", [popularity_row(*item) for item in counts.items()])
    assert read_popularity(tmp_path / "x.jsonl") == counts
    rows = [json.loads(line) for line in (tmp_path / "x.popularity.jsonl").read_text().splitlines()]
    assert rows[1] == {"userid": "undated", "chosen": 5, "rejected": 9}
    scores = [
        BASELINES["popularity before"](record("x", "y"), popularity, 0) for popularity in (*counts.values(), None)
    ]
    assert scores == [1, None, None]


def test_a_damaged_manifest_is_named(tmp_path):
    assert read_manifest(tmp_path / "x.jsonl") == {}
    for text in ("{", "[1]"):
        (tmp_path / "x.build.json").write_text(text)
        with pytest.raises(RecordError, match=r"x\.build\.json: .*build the benchmark again"):
            read_manifest(tmp_path / "x.jsonl")


@pytest.mark.parametrize("check", [True, False])
def test_a_folder_in_the_place_of_the_benchmark_file_is_refused_before_anything_is_read(check, tmp_path):
    with pytest.raises(ValueError, match=f"--out {tmp_path}: a folder stands where a file is needed"):
        build_benchmark(BuildOptions(name="movielens", raw=tmp_path, out=tmp_path, check=check))
