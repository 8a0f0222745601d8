"""Which records a benchmark holds, and what the name of a variant decides."""

import pytest
from copies import write_copy
from suite import load_benchmarks, shown_history

from alignxplore.errors import one_sentence


def test_a_variant_has_the_task_of_its_benchmark(record, benchmark_file):
    records = [record(str(i), length=9) for i in range(3)]
    names = ("mind", "mind~shuffled", "student_phd~to~mind")
    plain, variant, crossed = load_benchmarks([str(benchmark_file(name, records)) for name in names])
    assert [b.name for b in (plain, variant, crossed)] == ["mind", "mind~shuffled", "student_phd~to~mind"]
    assert variant.task == plain.task == "recommendation" and crossed.task == "selection"
    assert len(shown_history(variant, variant.records[0])) == 6 and len(shown_history(crossed, crossed.records[0])) == 9


def test_a_name_that_is_not_known_is_a_benchmark_of_its_own(record, benchmark_file, caplog):
    file = benchmark_file("own", [record("a", length=9)])
    (clicks,) = load_benchmarks([f"own:recommendation={file}"])
    assert clicks.task == "recommendation" and len(shown_history(clicks, clicks.records[0])) == 6 and not caplog.records
    for specs in ([f"own={file}"], [str(file)], [str(file.parent)]):
        caplog.clear()
        (answers,) = load_benchmarks(specs)
        assert (answers.name, answers.task) == ("own", "selection") and "taken for a selection task" in caplog.text
    caplog.clear()
    write_copy(file.parent / "copies", "own~shuffled", clicks.records, clicks, task=clicks.task)
    (copy,) = load_benchmarks([str(file.parent / "copies")])
    assert (copy.name, copy.task) == ("own~shuffled", "recommendation") and not caplog.records


@pytest.mark.parametrize("name, message", [
    ("own:writing", "own:writing: the task is one of recommendation, selection"), ("mind:selection", "the task of mind is recommendation"),
    ("my_mind", "would be taken for mind"), ("a/b", "cannot be the name"),
])
def test_a_name_or_task_that_cannot_be_is_refused_in_a_sentence(name, message, record, benchmark_file):
    with pytest.raises(SystemExit, match=message), one_sentence():
        load_benchmarks([f"{name}={benchmark_file('own', [record('a')])}"])


def test_two_files_of_one_name_are_refused(record, benchmark_file):
    first, second = (benchmark_file(name, [record("a")]) for name in ("mind", "mind.matched"))
    for specs in ([str(first.parent)], [str(first), str(second)], [f"mind={first}", f"mind={second}"]):
        with pytest.raises(SystemExit, match="are both mind; "), one_sentence():
            load_benchmarks(specs)
    assert [b.name for b in load_benchmarks([f"mind={first}", f"matched={second}"])] == ["mind", "matched"]
