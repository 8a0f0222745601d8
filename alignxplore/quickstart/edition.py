"""A MovieLens edition as its builder sees it. Needs the packages of the builder, which `--check` may not have."""

import hashlib
from pathlib import Path

from alignxplore.datasets import get, movielens
from alignxplore.datasets.building import Job
from alignxplore.datasets.sidecars import manifest_path
from alignxplore.errors import UserError
from alignxplore.records import read_object


class EditionError(UserError):
    """A folder that holds no edition, or several."""


def check_edition(raw: Path, option: str) -> None:
    """Raise an `EditionError` where the builder finds no edition in a folder, or several.

    Args:
        option: what the folder was given by, as it stands before it: `DATA=`.
    """
    try:
        movielens.sources(Job(get("movielens"), raw))
    except (FileNotFoundError, ValueError) as error:
        raise EditionError(f"{option}{error}") from None


def is_edition_of(raw: Path, benchmark: Path) -> bool:
    """Whether a folder holds the edition that a benchmark file was built from, by what its manifest counted: its raw
    files may be gone."""
    counts = read_object(manifest_path(benchmark))["counts"]
    return movielens.is_of(Job(get("movielens"), raw), counts)


def ratings_hash(raw: Path) -> str:
    """Of the file of ratings that the builder reads."""
    with movielens.sources(Job(get("movielens"), raw))[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
