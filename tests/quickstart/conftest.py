"""A finished quick start on films, and another edition beside it."""

import json

import pytest

from alignxplore.quickstart import films
from alignxplore.quickstart.folder import RunFolder
from tests.datasets import test_movielens


@pytest.fixture
def trained(tmp_path):
    """The settings of a finished quick start: its folder holds what is said of it."""
    settings = films.FilmSettings.read({"SEED": "3", "TEST_WINDOWS": "2"}, out=tmp_path / "run")
    (settings.out / "data").mkdir(parents=True)
    RunFolder(settings.out).note_settings(settings.deciding())
    (settings.out / "results.json").write_text("[]")
    counts = {"films read": 9742, "ratings read": 100836}
    manifest = {"dataset": "movielens", "edition": "ml-latest-small", "counts": counts}
    (settings.out / "data/movielens_upi.build.json").write_text(json.dumps(manifest))
    test_movielens.write(tmp_path / "ml-1m", test_movielens.RATINGS, "dat")
    return settings
