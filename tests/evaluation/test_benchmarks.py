"""Which records a benchmark holds, and what the name of a variant decides."""

import pytest

from alignxplore.datasets.sidecars import manifest_path, read_manifest
from alignxplore.errors import one_sentence
from alignxplore.evaluation.benchmarks import load_benchmarks, shown_history
from alignxplore.evaluation.derived import write_copy
from alignxplore.evaluation.report import writing
from alignxplore.records import RecordError, write_json


def test_a_variant_has_the_task_of_its_benchmark(record, benchmark_file):
    records = [record(str(i), length=9) for i in range(3)]
    names = ("mind", "mind~shuffled", "student_phd~to~mind")
    original, variant, cross_task = load_benchmarks([str(benchmark_file(name, records)) for name in names])
    assert [b.name for b in (original, variant, cross_task)] == ["mind", "mind~shuffled", "student_phd~to~mind"]
    assert variant.task == original.task == "recommendation" and cross_task.task == "selection"
    assert (
        len(shown_history(variant, variant.records[0])) == 6
        and len(shown_history(cross_task, cross_task.records[0])) == 9
    )


def test_a_name_that_is_not_known_is_a_benchmark_of_its_own(record, benchmark_file, caplog):
    file = benchmark_file("own", [record("a", length=9)])
    (clicks,) = load_benchmarks([f"own:recommendation={file}"])
    assert (
        clicks.task == "recommendation" and len(shown_history(clicks, clicks.records[0])) == 6 and not caplog.records
    )
    for specs in ([f"own={file}"], [str(file)], [str(file.parent)]):
        caplog.clear()
        (answers,) = load_benchmarks(specs)
        assert (answers.name, answers.task) == ("own", "selection") and "taken for a selection task" in caplog.text
    caplog.clear()
    write_copy(file.parent / "copies", "own~shuffled", clicks.records, clicks, task=clicks.task)
    (copy,) = load_benchmarks([str(file.parent / "copies")])
    assert (copy.name, copy.task) == ("own~shuffled", "recommendation") and not caplog.records


@pytest.mark.parametrize(
    "name, message",
    [
        ("own:writing", "own:writing: the task is one of recommendation, selection"),
        ("mind:selection", "the task of mind is recommendation"),
        ("my_mind", "would be taken for mind"),
        ("a/b", "cannot be the name"),
        ("..", "cannot be the name"),
        (".hidden", "a letter or digit begins it"),
    ],
)
def test_a_name_or_task_that_cannot_be_is_refused_in_a_sentence(name, message, record, benchmark_file):
    with pytest.raises(SystemExit, match=message), one_sentence():
        load_benchmarks([f"{name}={benchmark_file('own', [record('a')])}"])


def test_a_file_keeps_its_own_name_and_names_pick_among_all_that_is_given(record, benchmark_file, tmp_path):
    mind, amazon, phd = (str(benchmark_file(name, [record("a")])) for name in ("mind", "amazon", "student_phd"))
    folder = str(tmp_path)

    def found(data: list[str], names: list[str] | None = None) -> list[str]:
        return [f"{b.name} {b.path.name.removesuffix('_upi.jsonl')}" for b in load_benchmarks(data, names)]

    with pytest.raises(FileNotFoundError, match="no benchmark student_phd among mind"):
        found([mind], ["student_phd"])
    assert found([mind, amazon], ["amazon", "mind"]) == ["amazon amazon", "mind mind"]
    assert found([f"a={mind}", f"b={amazon}"], ["b"]) == ["b amazon"]
    assert found([folder, f"own={phd}"], ["own", "mind"]) == ["own student_phd", "mind mind"]
    assert found([f"mind={amazon}", folder], ["mind"]) == ["mind amazon"], "what is named by hand is meant"
    with pytest.raises(FileNotFoundError, match=r"no hicupid_upi\.jsonl here; it holds: amazon, mind, student_phd"):
        found([folder, f"own={phd}"], ["own", "hicupid"])


def test_a_copy_tells_how_its_original_was_made(record, benchmark_file, tmp_path):
    (original,) = load_benchmarks([str(benchmark_file("student_phd", [record("a")]))])
    manifest = {"edition": "", "protocol": "published", "min_interactions": 2, "split": "all", "sha256": "0"}
    write_json(
        manifest_path(original.path), manifest | {"counts": {"dropped from a history: repeated": 7, "users kept": 1}}
    )
    write_copy(tmp_path / "copies", "student_phd", original.records, original, task=original.task)
    assert writing.built_how(tmp_path / "copies" / "student_phd_upi.jsonl") == writing.built_how(original.path)
    assert writing.built_how(original.path)["built"]["taken_out"] == 7 and "sha256" not in read_manifest(
        tmp_path / "copies" / "student_phd_upi.jsonl"
    )
    hub_file = tmp_path / "datasets--owner--set" / "snapshots" / "0a1b" / "mind_upi.jsonl"
    write_copy(hub_file.parent, "mind", original.records, original, task="recommendation")
    manifest_path(hub_file).unlink()
    (hub_benchmark,) = load_benchmarks([str(hub_file)])
    write_copy(tmp_path / "copies", "mind", hub_benchmark.records, hub_benchmark, task="recommendation")
    assert writing.built_how(tmp_path / "copies" / "mind_upi.jsonl") == {"built": None, "hub": "owner/set@0a1b"}
    with pytest.raises(RecordError, match="a copy would take its original's place"):
        write_copy(original.path.parent, "student_phd", original.records, original, task=original.task)
    assert original.path.is_file()


def test_two_files_of_one_name_are_refused(record, benchmark_file):
    first, second = (benchmark_file(name, [record("a")]) for name in ("mind", "mind.matched"))
    for specs in ([str(first.parent)], [str(first), str(second)], [f"mind={first}", f"mind={second}"]):
        with pytest.raises(SystemExit, match="are both mind; "), one_sentence():
            load_benchmarks(specs)
    assert [b.name for b in load_benchmarks([f"mind={first}", f"matched={second}"])] == ["mind", "matched"]
