"""Golden values: what the seeded tiny runs of the tests came to, committed in a golden.json beside those tests.

    GOLDEN=write ./test.sh -k golden      # after a change that is meant to move them: writes the files anew

They repeat on processors that round alike. Elsewhere the tiny policy already learns other weights (0.003 apart after
240 steps with AVX2 and with AVX512), so values stand by kind of processor; on one without any, a warning says so.
"""

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from alignxplore.records import write_json


def processor() -> str:
    """What decides how sums round: the maker, and the instructions that torch uses; "AuthenticAMD AVX512"."""
    import torch

    maker = re.search(r"^vendor_id\s*: (\S+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{maker[1] if maker else 'unknown'} {torch.backends.cpu.get_cpu_capability()}"


def check_golden(file: Path, run: str, values_of: Mapping[str, Sequence[float]]) -> None:
    """Compare the values of each step of `run` with the file's: rewards to 1e-6, others to 1e-4 of their size."""
    golden, here = json.loads(file.read_text()) if file.exists() else {}, processor()
    if os.environ.get("GOLDEN") == "write":
        golden.setdefault(here, {})[run] = {name: list(values) for name, values in values_of.items()}
        write_json(file, golden)
    if here not in golden:
        warnings.warn(f"{file} has no values of {here}, so nothing was compared; GOLDEN=write adds them", stacklevel=2)
        return
    expected = golden[here][run]
    assert values_of.keys() == expected.keys()
    for name, values in values_of.items():
        relative, absolute = (0, 1e-6) if name.endswith("reward") else (1e-4, 1e-6)
        assert values == pytest.approx(expected[name], rel=relative, abs=absolute), f"{run}, {name}"
