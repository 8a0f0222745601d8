"""The models of a finished quick start on the persons of another MovieLens edition: nothing is trained.

    ./quickstart.sh --out runs/quickstart --evaluate ml-1m      # → runs/quickstart/other/: results.json, report.html,
                                                                # statements.json

Rows are made as those of the test were, of all persons of the edition or a sample of them. A large edition may hold
persons of the small one under other numbers; of 250 drawn among 100,000 it is one or two.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from alignxplore.errors import UserError
from alignxplore.quickstart.films import (
    BENCHMARK,
    WRITING,
    FilmSettings,
    benchmark_windows,
    build,
    check_raw,
    count_statements,
    cut_seconds,
    finished,
    policies,
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
    ratings: str = taken()  # what they hold: another edition may be put under the same name

    @property
    def remedy(self) -> str:
        """The folder of results goes with that of the models."""
        return f"move or delete the folder {self.out}, and nothing above it, to evaluate this edition"

    @classmethod
    def of(cls, folder: Path, raw: Path) -> Self:
        """Of the finished quick start in `folder`; `raw` has the files of the edition.

        Raises:
            UnfinishedError: there is no such run.
            SettingError: there is no such folder. EditionError: it holds no edition, or several.
            OtherError: it is the edition that the models were trained on.
        """
        trained = finished(folder)
        check_raw(raw, "--evaluate ")
        from alignxplore.quickstart.edition import (
            is_edition_of,
            ratings_hash,
        )  # not at import: `--check` may have no packages

        if is_edition_of(raw, folder / "data" / BENCHMARK):
            raise OtherError(
                f"--evaluate {raw}: the models in {folder} were trained on persons of this edition, and its table has "
                "the others; give another edition"
            )
        return cls(out=folder / "other", trained=trained, raw=raw, ratings=ratings_hash(raw))


def steps(settings: OtherSettings) -> list[Step]:
    """From raw ratings to the table."""
    out, trained = settings.out, settings.trained
    stages, written = stages_of(trained, out / "data"), policies(trained.out)
    cut = build(benchmark_windows(trained), settings.raw, trained.seed, out)
    table = ("python", "-m", "alignxplore.quickstart.edition", "--data", out / "data" / BENCHMARK)
    return [
        Step("data", cut_seconds(settings.raw, 1), [cut]),
        Step("summaries", 180, [stages.write_summaries(out / "eval", written, *WRITING)]),
        Step("scores", 150, [stages.score_summaries(out / "eval", list(written), "--training_ids", "others")]),
        Step(
            "table",
            10,
            [
                count_statements(trained, out),
                command(*table, "--raw", settings.raw, "--eval", out / "eval", "--out", out),
            ],
        ),
    ]
