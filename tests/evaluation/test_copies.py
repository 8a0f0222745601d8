"""Copies of benchmarks never take the place of a file that is read, or of each other."""

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation.cross_task import CrossTaskOptions, write_crossed
from alignxplore.evaluation.derived import read_names
from alignxplore.evaluation.perturbations import PerturbOptions, write_copies


@pytest.fixture
def folder(benchmark_file, record, tmp_path):
    """Two benchmarks of the same persons, named a and b."""
    for name, kind in (("a", "film"), ("b", "news")):
        benchmark_file(name, [record(f"u{i}", 8, kind) for i in range(4)])
    return tmp_path


def texts(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_no_file_that_is_read_is_written_over(folder):
    a, b, before = f"{folder}/a_upi.jsonl", f"{folder}/b_upi.jsonl", texts(folder)
    for data, mix in (([f"b={a}", f"a={b}"], None), ([f"b={a}"], f"m={b}"), ([f"own={a}", f"b={b}"], None)):
        kinds = ["mixed:0.5"] if mix else ["shuffled"]
        with pytest.raises(UserError, match="_upi.jsonl are the same file; name another one for --out"):
            write_copies(PerturbOptions(data=data, out=str(folder), kinds=kinds, mix=mix, limit=2))
        assert texts(folder) == before
    with pytest.raises(UserError, match="_upi.jsonl are the same file; name another one for --out"):
        write_crossed(CrossTaskOptions(data=[f"b={a}", f"a={b}"], out=str(folder)))
    assert texts(folder) == before


def test_what_lies_beside_a_file_that_is_read_is_not_written_over_either(folder):
    (folder / "b_upi.build.json").write_text("{}")
    (folder / "b_upi.jsonl").rename(folder / "b_upi")  # whose manifest has the name of the copy's
    data = [f"b={folder}/a_upi.jsonl"]
    before = texts(folder)
    with pytest.raises(UserError, match="are the same file"):
        write_copies(PerturbOptions(data=data, out=str(folder), kinds=["mixed"], mix=f"m={folder}/b_upi"))
    assert texts(folder) == before


@pytest.mark.parametrize("kinds", [["swapped:0.1234567", "swapped:0.12345671"], ["shuffled", "shuffled"]])
def test_two_kinds_of_one_name_are_refused(folder, kinds):
    with pytest.raises(UserError, match="two of the copies have this name"):
        write_copies(PerturbOptions(data=[f"{folder}/a_upi.jsonl"], out=f"{folder}/out", kinds=kinds))
    assert not (folder / "out").exists()


def test_a_folder_of_two_benchmarks_is_not_mixed_in(folder, tmp_path):
    options = {"data": [f"{folder}/a_upi.jsonl"], "out": f"{folder}/out", "kinds": ["mixed"]}
    with pytest.raises(UserError, match="--mix .* holds a, b; name one of them: --mix a="):
        write_copies(PerturbOptions(**options, mix=str(folder)))
    write_copies(PerturbOptions(**options, mix=f"{folder}/b_upi.jsonl"))
    assert read_names(folder / "out") == ["a", "a~mixed"]


@pytest.mark.parametrize("text", ["swapped:", "swapped:abc"])
def test_a_share_is_a_number(text):
    with pytest.raises(ValueError, match=f"'{text}': .* is no number; write a share"):
        PerturbOptions(data=["x"], out="y", kinds=[text])
