"""Which records a benchmark holds, and what the name of a variant decides."""

import pytest
from suite import load_benchmarks, shown_history


def test_a_variant_has_the_task_of_its_benchmark(record, benchmark_file):
    records = [record(str(i), length=9) for i in range(3)]
    names = ("mind", "mind~shuffled", "student_phd~to~mind")
    plain, variant, crossed = load_benchmarks([str(benchmark_file(name, records)) for name in names])
    assert [b.name for b in (plain, variant, crossed)] == ["mind", "mind~shuffled", "student_phd~to~mind"]
    assert variant.task == plain.task == "recommendation" and crossed.task == "selection"
    assert len(shown_history(variant, variant.records[0])) == 6 and len(shown_history(crossed, crossed.records[0])) == 9


def test_an_unknown_name_says_which_there_are(record, benchmark_file):
    with pytest.raises(KeyError, match="no data set named 'nothing'; there are: mind"):
        load_benchmarks([f"nothing~shuffled={benchmark_file('mind', [record('a')])}"])
