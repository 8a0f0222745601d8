"""Is this the same run? What decides what a folder holds is written down in it, and compared by every command that
works there again. SFT, RL, the scores of the signal model and the quick start ask here; what each of them writes down
is its own business. (Summaries and judgements are units with ids of their own: alignxplore/journal.py.)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignxplore.errors import UserError


class OtherRun(UserError, ValueError):
    """The folder holds another run. The message names each setting that differs, before and now."""


def refuse_other(
    folder: str | Path,
    old_settings: Mapping[str, Any],
    new_settings: Mapping[str, Any],
    out: str = "--out",
    remedy: str = "",
) -> None:
    """Raise `OtherRun` if a folder that was made with `old_settings` is not the one that `new_settings` would make.

    Args:
        old_settings: by name; empty: nothing was made there yet.
        out: how another folder is chosen.
        remedy: what to do instead, where no other folder can be chosen.
    """
    new_settings = json.loads(json.dumps(new_settings))  # as it is read back
    changes = [
        f"{name} {old_settings.get(name)!r} → {new_settings.get(name)!r}"
        for name in {**old_settings, **new_settings}
        if old_settings and old_settings.get(name) != new_settings.get(name)
    ]
    if changes:
        remedy = remedy or f"choose another {out}, or delete that folder to start again"
        raise OtherRun(f"{folder} holds a run with other settings ({'; '.join(changes)}); {remedy}")


def written(path: Path) -> dict[str, Any]:
    """The settings that stand in a JSON file; none if it is not there."""
    from alignxplore.records import read_object  # not at import: the quick start's --check needs no packages

    return read_object(path) if path.is_file() else {}
