"""What the studies share: each stands upon a finished quick start of the simulated world, and goes into a folder of
its own."""

from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import Plain, option
from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.quickstart.folder import settings_of
from alignxplore.quickstart.settings import Settings, setting


class StudyError(UserError):
    """The study cannot begin."""


@dataclass(kw_only=True)
class StudyOptions(Plain):
    """All else is said by variables."""

    check: bool = option("print the steps, which are done and how long the others take; start nothing", False)


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """A study's choices."""

    base: Path = setting("a finished quick start of the simulated world", ROOT / "runs/world")


def of_the_base(*names: str) -> dict[str, str]:
    """Field name → value of these settings in the quick start that the study stands upon.

    Raises:
        StudyError: there is no finished quick start of the simulated world.
    """
    base = StudySettings.read(out=Path()).base
    if not all((base / name).is_file() for name in ("settings", "results.json")):
        raise StudyError(
            f"{base} holds no finished quick start; run ./quickstart.sh --world first, or set BASE to its folder"
        )
    settings = settings_of(base)
    if missing := [name for name in names if name.upper() not in settings]:
        raise StudyError(
            f"{base} is no quick start of the simulated world: {missing[0].upper()} is not in its settings"
        )
    return {name: settings[name.upper()] for name in names}
