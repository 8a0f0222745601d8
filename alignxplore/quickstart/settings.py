"""The choices of a pipeline: fields of a dataclass, read from environment variables of the same names in capitals.

@dataclass(frozen=True, kw_only=True)
class WorldSettings(Settings):
    seed: int = setting("seed of all draws", 1)

settings = WorldSettings.read(out=Path("runs/world"))      # SEED=2 in the environment: settings.seed == 2
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from alignxplore.environment import ROOT
from alignxplore.errors import UserError

MOST = 1_000_000_000  # of a whole number: seeds of all libraries are below 2^31


class SettingError(UserError):
    """A variable that cannot be meant as it stands."""


class Number(str):
    """A number above 0 as it was written: 3e-4 stays 3e-4 in the commands."""

    def __new__(cls, text: str) -> Self:
        if not 0 < float(text) < math.inf:
            raise ValueError(text)
        return super().__new__(cls, text)


def setting(text: str, default: Any, *, least: int = 1, decides: bool = True) -> Any:
    """A field that is read from the environment.

    Args:
        text: its help.
        least: the smallest whole number that it may be.
        decides: whether it decides what is made, so that a folder made with another value is refused.
    """
    return field(default=default, metadata={"help": text, "least": least, "decides": decides})


def taken() -> Any:
    """A field that decides what is made and is no choice: it is taken from somewhere else."""
    return field(metadata={"decides": True})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The folder of a run, and what a list of steps adds."""

    out: Path

    @property
    def remedy(self) -> str:
        """What to do where the folder was made with other settings; empty: choose another one."""
        return ""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ, **values: Any) -> Self:
        """Fields from the environment; `values` are those that are none of its business. An empty variable is none.

        Raises:
            SettingError: a number that is none, or that cannot be meant.
        """
        for one in fields(cls):
            if "help" in one.metadata and one.name not in values and (text := environment.get(one.name.upper())):
                values[one.name] = _value(one.name.upper(), text, type(one.default), one.metadata["least"])
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


def _value(name: str, text: str, kind: Any, least: int) -> Any:
    if issubclass(kind, Path):
        return Path(text).resolve()
    needed = "a number above 0" if kind is Number else f"a whole number from {least} to {MOST}"
    try:
        value = kind(text)
    except ValueError:
        raise SettingError(f"{name}={text}: {needed} is needed") from None
    if isinstance(value, int) and not least <= value <= MOST:
        raise SettingError(f"{name}={text}: {needed} is needed")
    return value
