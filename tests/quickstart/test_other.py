"""Which folder is another edition, for the models of a finished quick start: the builder's own word is asked."""

import gzip
import json
import os
import re
import shutil

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation.rows import read_results
from alignxplore.quickstart import world
from alignxplore.quickstart.edition import EditionOptions, note_edition
from alignxplore.quickstart.folder import RunFolder, settings_of
from alignxplore.quickstart.other import OtherSettings
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.runner import StepError
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Step, command
from alignxplore.same_run import OtherRun
from tests.datasets import test_movielens
from tests.quickstart.test_lists import check


def edition(folder):
    """A small edition of 1M's form."""
    return test_movielens.write(folder, test_movielens.RATINGS, "dat")


RAW = {  # case → what makes the raw folder, and what is said of it ("": nothing)
    "nowhere": (lambda raw: None, "no such folder"),
    "a file": (lambda raw: raw.write_text("1::1::5::1"), "a file; give the folder that holds it, or unpack"),
    "only a zip": (
        lambda raw: (raw / "ml-1m.zip").write_text("PK"),
        "no raw files of movielens here; unpack ml-1m.zip",
    ),
    "empty": (lambda raw: raw.mkdir(exist_ok=True), "no raw files of movielens here; expected "),
    "no films": (lambda raw: (edition(raw) / "movies.dat").unlink(), "no raw files of movielens here; expected "),
    "two editions": (
        lambda raw: (edition(raw / "ml-1m"), edition(raw / "ml-10m")),
        r"holds several editions \(ml-10m/ratings.dat, ml-1m/ratings.dat\); give the folder of one",
    ),
    "deep below": (lambda raw: edition(raw / "a/b/c/ml-1m"), "no raw files of movielens here"),
    "a link": (lambda raw: (raw / "ml-1m").symlink_to(edition(raw.parent / "elsewhere"), True), ""),
    "one below": (lambda raw: edition(raw / "a/ml-1m"), ""),
}


@pytest.mark.parametrize("case", RAW)
def test_the_start_looks_where_the_builder_looks(trained, tmp_path, case):
    raw, (make, problem) = tmp_path / "raw", RAW[case]
    if case not in ("nowhere", "a file"):
        raw.mkdir()
    make(raw)
    if not problem:
        assert OtherSettings.of(trained.out, raw).raw == raw
    else:
        with pytest.raises(UserError, match=f"^--evaluate {raw}: {problem}"):
            OtherSettings.of(trained.out, raw)
    process = check(tmp_path / "new", environment=os.environ | {"DATA": str(raw)})
    assert (process.returncode == 0) == (problem == "") and not (tmp_path / "new").exists()
    assert not problem or f"DATA={raw}: {problem.split('(')[0].rstrip(chr(92))}" in process.stderr


def test_a_folder_with_the_own_edition_and_another_one_holds_several(trained, tmp_path):
    edition(tmp_path / "both/ml-1m")
    shutil.copytree(trained.data, tmp_path / "both/ml-latest-small")
    with pytest.raises(UserError, match="holds several editions .*; give the folder of one"):
        OtherSettings.of(trained.out, tmp_path / "both")


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ("unfinished", "holds no finished quick start; run ./quickstart.sh --out .*/run first"),
        ("world", "another kind of run, not a quick start on films .DATA is not in its settings."),
        ("the same edition", "were trained on persons of this edition"),
        ("a copy of it", "were trained on persons of this edition"),
        ("a packed copy", "were trained on persons of this edition"),
        ("under another name", "were trained on persons of this edition"),
        ("with other line ends", "were trained on persons of this edition"),
        ("its own folder is gone", "were trained on persons of this edition"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(trained, tmp_path, case, problem):
    raw = trained.data if case == "the same edition" else tmp_path / "raw"
    shutil.copytree(tmp_path / "ml-1m" if case in ("unfinished", "world") else trained.data, tmp_path / "raw")
    if case == "unfinished":
        (trained.out / "results.json").unlink()
    if case == "a packed copy":
        (raw / "ratings.csv.gz").write_bytes(gzip.compress((raw / "ratings.csv").read_bytes()))
        (raw / "ratings.csv").unlink()
    if case == "under another name":
        (raw / "ratings.csv").rename(raw / "rating.csv")
        (raw / "movies.csv").rename(raw / "movie.csv")
    if case == "with other line ends":
        for name in ("ratings.csv", "movies.csv"):
            (raw / name).write_bytes((raw / name).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    if case == "its own folder is gone":
        RunFolder(trained.out).note_settings(trained.deciding() | {"DATA": str(tmp_path / "nowhere")})
    if case == "world":
        RunFolder(trained.out).note_settings(world.WorldSettings.read({}, out=trained.out).deciding())
    with pytest.raises(UserError, match=problem):
        OtherSettings.of(trained.out, raw)


def others(trained, raw):
    """The pipeline of this edition, with a first step that is quick."""
    settings = OtherSettings.of(trained.out, raw)
    return Pipeline.of(settings, [Step("data", 1, [command("test", "-s", settings.raw / "movies.dat")])])


def test_an_edition_that_failed_before_anything_was_made_binds_nobody(trained, tmp_path):
    (edition(tmp_path / "bad") / "movies.dat").write_text("")
    with pytest.raises(StepError, match="step 'data' failed"):
        carry_out(others(trained, tmp_path / "bad"))
    assert "data: about" in carry_out(others(trained, tmp_path / "ml-1m"), check=True)
    carry_out(others(trained, tmp_path / "ml-1m"))
    assert settings_of(trained.out / "other")["RAW"] == str(tmp_path / "ml-1m")
    own = re.escape(str(trained.out / "other"))
    for check_only in (True, False):
        with pytest.raises(OtherRun, match=f"^{own} holds a run with other .*; move or delete the folder {own}, and"):
            carry_out(others(trained, edition(tmp_path / "good")), check_only)


def test_another_edition_under_the_same_name_is_not_done_before(trained, tmp_path):
    raw = tmp_path / "ml-1m"
    carry_out(others(trained, raw))
    assert "data: done before" in carry_out(others(trained, raw), check=True)
    test_movielens.write(raw, test_movielens.RATINGS[:-3], "dat")
    with pytest.raises(OtherRun, match="RATINGS '.*' → '.*'"):
        carry_out(others(trained, raw), check=True)
    settings = (trained.out / "other/settings").read_text().splitlines(keepends=True)
    (trained.out / "other/settings").write_text("".join(line for line in settings if line.startswith("RAW=")))
    assert "data: done before" in carry_out(others(trained, raw), check=True), "as an earlier version left it"


def test_results_say_of_which_edition_they_are(tmp_path):
    folder_of_scores, out = tmp_path / "eval", tmp_path / "other"
    for folder in (folder_of_scores, out):
        folder.mkdir()
    row = {"policy": "sft", "setting": "full", "benchmark": "movielens", "judge": "judge", "protocol": "choice"}
    row |= {"n": 1336, "accuracy": 0.66, "ci_low": 0.63, "ci_high": 0.69}
    (folder_of_scores / "results.json").write_text(json.dumps([row]))
    (folder_of_scores / "report.md").write_text("# Results\n\n### Benchmarks\n")
    (folder_of_scores / "report.html").write_text("<body>\n<h1>Results</h1>\n<p>more</p>\n")
    counts = {"users kept": 202, "rows, windows of these users": 1336}
    manifest = {"edition": "35,870 ratings", "counts": counts}
    (tmp_path / "films.build.json").write_text(json.dumps(manifest))
    options = EditionOptions(data=tmp_path / "films.jsonl", raw=tmp_path / "m<1>", eval=folder_of_scores, out=out)
    line = "Of m<1> (35,870 ratings): 202 persons, 1,336 rows."
    assert note_edition(options) == line
    assert (out / "report.md").read_text() == f"# Results\n\n{line}\n\n### Benchmarks\n"
    page = (out / "report.html").read_text()
    assert "</h1>\n<p>Of m&lt;1&gt; (35,870 ratings): 202 persons, 1,336 rows.</p>\n<p>more" in page
    assert json.loads((out / "results.json").read_text()) == [row | {"edition": "35,870 ratings"}]
    assert [result.accuracy for result in read_results(out / "results.json")] == [0.66], "others read it as before"
