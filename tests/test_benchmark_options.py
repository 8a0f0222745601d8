"""The options of benchmarks/: sizes that cannot be meant are refused in a sentence, before anything is made."""

import dataclasses
import importlib.util
import inspect
import os
import subprocess
import sys
import typing

import pytest

from alignxplore.command import Checkable
from tests import ROOT

SCRIPTS = sorted(path for path in (ROOT / "benchmarks").glob("*.py") if "    run(" in path.read_text())
MAY_BE_NOTHING = {"judge_gpus", "fsdp_size", "seed"}  # 0 has a meaning


def options_of(path):
    """The options class of a script, and the fields that are sizes."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (options,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and value.__name__.endswith("Options")
    )
    kinds = typing.get_type_hints(options)
    names = [field.name for field in dataclasses.fields(options) if field.name not in vars(Checkable())]
    return options, {name: kinds[name] for name in names if kinds[name] in (int, int | None, list[int])}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("number", [0, -1])
def test_every_size_of_nothing_is_refused(path, number):
    options, kinds = options_of(path)
    options()
    assert kinds
    for name in kinds.keys() - MAY_BE_NOTHING:
        default = getattr(options(), name)
        value = [number, *default[1:]] if isinstance(default, list) else number
        with pytest.raises(ValueError, match=f"^--{name}"):
            options(**{name: value})


@pytest.mark.parametrize("words", [("packing.py", "--steps", "0"), ("report_page.py", "--rows", "0")])
def test_it_is_one_sentence_on_the_line(words):
    command = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:]]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    message = f"{words[0]}: {words[1]} 0: at least 1 (--help explains all options)\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", message)
