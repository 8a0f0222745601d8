"""Which records a benchmark holds, and what the name of a variant decides."""

from pathlib import Path

import pytest
from suite import load_benchmarks, one_sentence, shown_history

from alignxplore.records import read_users


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


def test_what_says_itself_what_is_wrong_is_shown_without_a_traceback():
    with pytest.raises(SystemExit, match="mind.jsonl: no such file"), one_sentence():
        list(read_users(Path("mind.jsonl")))
    with pytest.raises(KeyError), one_sentence():  # a fault of ours keeps its traceback
        {}["absent"]
