"""Results with the name of the MovieLens edition that they are of, and what its builder sees in a folder.

    python -m alignxplore.quickstart.edition --data other/data/movielens_upi.jsonl --raw ml-1m --eval other/eval \\
        --out other

Needs the packages of the builder, which `--check` may not have.
"""

import hashlib
import html
from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import option, run
from alignxplore.datasets import get, movielens
from alignxplore.datasets.building import Job
from alignxplore.datasets.sidecars import manifest_path
from alignxplore.errors import UserError
from alignxplore.records import read_json, read_object, write_json, write_text


@dataclass(kw_only=True)
class EditionOptions:
    """Whose results."""

    data: Path = option("benchmark file that was built of the edition")
    raw: Path = option("raw folder of the edition")
    eval: Path = option("folder of its results and reports (--out of eval/evaluate.py)")
    out: Path = option("folder for results.json, report.md and report.html")


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


def note_edition(options: EditionOptions) -> str:
    """Copy results.json, report.md and report.html; each says of which edition it is."""
    manifest = read_object(manifest_path(options.data))
    persons, rows = (manifest["counts"][name] for name in ("users kept", "rows, windows of these users"))
    line = f"Of {options.raw.name} ({manifest['edition']}): {persons:,} persons, {rows:,} rows."
    results = [row | {"edition": manifest["edition"]} for row in read_json(options.eval / "results.json")]
    write_json(options.out / "results.json", results)
    for name, title, paragraph in (
        ("report.md", "# Results\n", f"\n{line}\n"),
        ("report.html", "<h1>Results</h1>\n", f"<p>{html.escape(line)}</p>\n"),
    ):
        text = (options.eval / name).read_text(encoding="utf-8")
        write_text(options.out / name, text.replace(title, title + paragraph, 1))
    return line


if __name__ == "__main__":
    run(note_edition, EditionOptions, __doc__)
