"""The folder of real sample files."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def samples() -> Path:
    """Folder of real sample files (MIND, Amazon, PersonaMem, P-Soups); they may not be redistributed."""
    folder = os.environ.get("REAL_SAMPLES_DIR")
    if not folder:
        pytest.skip("REAL_SAMPLES_DIR is not set: no real sample files on this machine")
    return Path(folder)
