"""An index that is larger than its memory: what was put is found, in order, and the process does not grow with it."""

import errno
import subprocess
import sys

import pytest

from alignxplore.places import Places
from tests import ROOT

GROW = """
from alignxplore.places import Places
def memory():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
places = Places()
for number in range(150_000):
    places.put(f"person {number}", number)
before = memory()
for number in range(150_000, 450_000):
    places.put(f"person {number}", number)
assert all(places.get(f"person {number}") == number for number in range(0, 450_000, 9_999))
print(memory() - before)
"""


def test_what_was_put_is_found_in_order():
    places = Places()
    for name, place in (("b", 2), ("a", 1), ("\ud800", -3), ("b", 7)):
        places.put(name, place)
    assert [places.get(name) for name in ("a", "b", "\ud800", "c")] == [1, 7, -3, None]
    assert list(places) == [("b", 7), ("a", 1), ("\ud800", -3)]


def test_memory_stays_where_it_is():
    assert int(subprocess.check_output([sys.executable, "-c", GROW], cwd=ROOT)) < 4_096, "kB for 300,000 names more"


def test_a_full_disk_is_said():
    places = Places()
    places._table.execute("PRAGMA max_page_count = 4")
    with pytest.raises(OSError, match="an index of what is done .database or disk is full") as error:
        for number in range(10_000):
            places.put(f"person {number}", number)
    assert error.value.errno == errno.ENOSPC
