"""What CONTRIBUTING.md asks of a data set is what the command asks of its module."""

import ast
import importlib
import inspect
import re

from alignxplore.datasets import DATASETS, __main__
from tests import ROOT


def asked_of_modules() -> set[str]:
    """Attributes that the command reads of what `builder` returns."""
    tree = ast.parse(inspect.getsource(__main__))
    is_builder = {"builder", "module"}.__contains__
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            names |= {node.attr} if isinstance(owner, ast.Name) and is_builder(owner.id) else set()
    return names


def test_contributing_names_every_function_that_a_data_set_must_have():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Adding a data set\n")[2].partition("\n## ")[0]
    functions = dict(re.findall(r"^def (\w+)\((.*?)\)", section, re.M))
    assert set(functions) == asked_of_modules() == {"build", "sources"}
    for module in {dataset.module for dataset in DATASETS.values()} - {None}:
        for name, parameters in functions.items():
            function = getattr(importlib.import_module(f"alignxplore.datasets.{module}"), name)
            assert list(inspect.signature(function).parameters) == [parameters.partition(":")[0]], (module, name)
