"""Golden values: what the seeded tiny runs of the tests came to, committed in a golden.json beside those tests.

GOLDEN=write ./test.sh -k golden      # after a change that is meant to move them: writes the files anew
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from alignxplore.records import write_json


def check_golden(file: Path, run: str, found: Mapping[str, Sequence[float]]) -> None:
    """Compare the values of each step of `run` with the file's: rewards to 1e-6, others to 1e-4 of their size."""
    if os.environ.get("GOLDEN") == "write":
        known = json.loads(file.read_text()) if file.exists() else {}
        write_json(file, known | {run: {name: list(values) for name, values in found.items()}})
    expected = json.loads(file.read_text())[run]
    assert found.keys() == expected.keys()
    for name, values in found.items():
        relative, absolute = (0, 1e-6) if name.endswith("reward") else (1e-4, 1e-6)
        assert values == pytest.approx(expected[name], rel=relative, abs=absolute), f"{run}, {name}"
