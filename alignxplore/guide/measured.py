"""All that is measured, from the registered metrics: the page "Metrics" of the documentation."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import alignxplore.evaluation.metrics  # noqa: F401  # registers all of them
from alignxplore.evaluation.registry import ACCURACY, AMONG_K, READING, WRITTEN, of_kind
from alignxplore.rl import metrics as rl

KINDS = {
    ACCURACY: "Of every number",
    READING: "Of how a judge or policy read",
    AMONG_K: "Of choices among k items",
    WRITTEN: "Of written answers (HiCUPID)",
}
_OF_RL: dict[str, Mapping[str, Callable[..., Any]]] = {
    "Of one stage (`stage1/NAME`; on held-out users `val/stage1/NAME`)": rl.STAGE,
    "Of one stage, in training alone": rl.TRAINING,
    "Of one stage and one judge (`stage1/NAME/JUDGE`)": rl.JUDGE,
    "Of a whole step (`NAME`)": rl.STEP,
}


def metrics_page() -> str:
    """Every registered metric: its field, its heading, what it is."""
    lines = ["## Evaluation", ""]
    for kind, title in KINDS.items():
        lines += [f"### {title}", "", "| field | heading | what it is |", "|---|---|---|"]
        lines += [f"| `{entry.name}` | {entry.heading} | {entry.description} |" for entry in of_kind(kind)] + [""]
    lines += ["## Reinforcement learning", ""]
    for title, functions in _OF_RL.items():
        lines += [f"### {title}", "", "| name | what it is |", "|---|---|"]
        lines += [f"| `{name}` | {_said(function)} |" for name, function in functions.items()] + [""]
    return "\n".join(lines)


def _said(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").split())
