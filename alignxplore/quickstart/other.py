"""The models of a finished quick start on the persons of another MovieLens edition: nothing is trained.

    ./quickstart.sh --out runs/quickstart --evaluate ml-1m      # → runs/quickstart/other/: results.json, report.html,
                                                                # statements.json

Rows are made as those of the test were, of all persons of the edition or a sample of them. A large edition may hold
persons of the small one under other numbers; of 250 drawn among 100,000 it is one or two.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from alignxplore.errors import UserError
from alignxplore.quickstart.films import (
    WRITING,
    FilmSettings,
    benchmark_windows,
    build,
    count_statements,
    cut_seconds,
    finished,
    policies,
    ratings_of,
    stages_of,
)
from alignxplore.quickstart.settings import Settings, taken
from alignxplore.quickstart.steps import Step, command


class OtherError(UserError):
    """These models cannot be evaluated on these persons."""


@dataclass(frozen=True, kw_only=True)
class OtherSettings(Settings):
    """Whose models, and on which edition."""

    trained: FilmSettings
    raw: Path = taken()

    @classmethod
    def of(cls, folder: Path, raw: Path) -> Self:
        """Of the finished quick start in `folder`; `raw` has the files of the edition.

        Raises:
            UnfinishedError: there is no such run.
            OtherError: there is no such edition, or it is the one that the models were trained on.
        """
        trained = finished(folder)
        if not raw.is_dir():
            raise OtherError(f"--evaluate {raw}: no such folder; give the raw folder of a MovieLens edition")
        if not ratings_of(raw):
            raise OtherError(f"--evaluate {raw}: holds no file of ratings; give the raw folder of a MovieLens edition")
        if _same_ratings(raw, trained.data):
            raise OtherError(
                f"--evaluate {raw}: the models in {folder} were trained on persons of this edition, and its table has "
                "the others; give another edition"
            )
        return cls(out=folder / "other", trained=trained, raw=raw)


def _same_ratings(raw: Path, other: Path) -> bool:
    """Whether an edition's ratings are also in another folder, by what they hold, under any name and packed or not."""
    ours, theirs = ({_contents(path) for path in ratings_of(folder)} for folder in (raw, other))
    return not ours.isdisjoint(theirs)


def _contents(path: Path) -> str:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def steps(settings: OtherSettings) -> list[Step]:
    """From raw ratings to the table."""
    out, trained = settings.out, settings.trained
    stages, written = stages_of(trained, out / "data"), policies(trained.out)
    cut = build(benchmark_windows(trained), settings.raw, trained.seed, out)
    files = [out / "eval" / name for name in ("results.json", "report.md", "report.html")]
    return [
        Step("data", cut_seconds(settings.raw, 1), [cut]),
        Step("summaries", 180, [stages.write_summaries(out / "eval", written, *WRITING)]),
        Step("scores", 150, [stages.score_summaries(out / "eval", list(written), "--training_ids", "others")]),
        Step("table", 10, [count_statements(trained, out), command("cp", *files, out)]),
    ]
