"""The choices of a pipeline: fields of a dataclass, read from environment variables of the same names in capitals.

@dataclass(frozen=True, kw_only=True)
class WorldSettings(Settings):
    seed: int = setting("seed of all draws", 1)

settings = WorldSettings.read(out=Path("runs/world"))      # SEED=2 in the environment: settings.seed == 2
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from alignxplore.environment import ROOT
from alignxplore.errors import UserError


class SettingError(UserError):
    """A variable that cannot be meant as it stands."""


class Number(str):
    """A number as it was written: 3e-4 stays 3e-4 in the commands."""

    kind = "number"

    def __new__(cls, text: str) -> Self:
        float(text)
        return super().__new__(cls, text)


def setting(text: str, default: Any, *, decides: bool = True) -> Any:
    """A field that is read from the environment.

    Args:
        text: its help.
        decides: whether it decides what is made, so that a folder made with another value is refused.
    """
    return field(default=default, metadata={"help": text, "decides": decides})


def taken() -> Any:
    """A field that decides what is made and is no choice: it is taken from somewhere else."""
    return field(metadata={"decides": True})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The folder of a run, and what a list of steps adds."""

    out: Path

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ, **values: Any) -> Self:
        """Fields from the environment; `values` are those that are none of its business. An empty variable is none.

        Raises:
            SettingError: a number that is none.
        """
        for one in fields(cls):
            if "help" in one.metadata and one.name not in values and (text := environment.get(one.name.upper())):
                values[one.name] = _value(one.name.upper(), text, type(one.default))
        return cls(**values)

    def deciding(self) -> dict[str, str]:
        """NAME → value of what decides what is made."""
        return {one.name.upper(): str(getattr(self, one.name)) for one in fields(self) if one.metadata.get("decides")}

    @classmethod
    def told(cls) -> str:
        """A line for each variable: its default, and what it is."""
        lines = (
            f"  {f'{one.name.upper()}={_short(one.default)}':32} {one.metadata['help']}"
            for one in fields(cls)
            if "help" in one.metadata
        )
        return "Variables and their defaults:\n" + "\n".join(lines)


def _short(default: Any) -> Any:
    return default.relative_to(ROOT) if isinstance(default, Path) and default.is_relative_to(ROOT) else default


def _value(name: str, text: str, kind: Any) -> Any:
    if issubclass(kind, Path):
        return Path(text).resolve()
    try:
        return kind(text)
    except ValueError:
        raise SettingError(f"{name}={text}: a {getattr(kind, 'kind', 'whole number')} is needed") from None
