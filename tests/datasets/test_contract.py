"""What CONTRIBUTING.md asks of a data set is what the command asks of its module."""

import ast
import csv
import importlib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignxplore.datasets import DATASETS, Dataset, __main__
from alignxplore.datasets.__main__ import BuildOptions, build_benchmark, describe, list_all
from alignxplore.datasets.building import Example, Job
from alignxplore.records import Interaction, UserRecord
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


def toy_sources(job: Job) -> list[Path]:
    return [job.raw / "rest.csv"]


def toy_build(job: Job) -> Iterator[Example]:
    """As CONTRIBUTING.md asks for, and no more: it reads no option."""
    rows = list(csv.reader(toy_sources(job)[0].open()))
    for user, group in itertools.groupby(rows, lambda row: row[0]):
        job.counts["users read"] += 1
        *history, target = [Interaction(name, f"not {name}", None) for _, name in group]
        yield Example(UserRecord(user, tuple(history), target))


@pytest.fixture
def build_toy(tmp_path, monkeypatch):
    """`build_toy("part", split="test")` → the rows; a data set that was added in one file and one line."""
    toy = Dataset("restaurants", "Restaurants", "recommendation", "Recommend one.", "restaurants", ("rest.csv",))
    monkeypatch.setitem(DATASETS, toy.name, toy)
    module = SimpleNamespace(sources=toy_sources, build=toy_build)
    monkeypatch.setitem(sys.modules, "alignxplore.datasets.restaurants", module)
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = [f"{user},r{user}.{place}\n" for user in range(60) for place in range(2 + user % 3)]
    (raw / "rest.csv").write_text("".join(lines))

    def build(**options) -> list[dict]:
        out = tmp_path / "toy_upi.jsonl"
        build_benchmark(BuildOptions(name=toy.name, raw=raw, out=out, **options))
        return [json.loads(line) for line in out.read_text().splitlines()]

    return build


@pytest.mark.parametrize(
    "parts", [[{"persons": [0, 0.5]}, {"persons": [0.5, 1]}], [{"split": "train"}, {"split": "test"}]]
)
def test_parts_of_a_data_set_of_ones_own_share_nobody(build_toy, parts):
    users, *users_of_parts = ({row["userid"] for row in build_toy(**options)} for options in ({}, *parts))
    assert len(users) == 60 and all(users_of_parts)
    assert not users_of_parts[0] & users_of_parts[1] and users_of_parts[0] | users_of_parts[1] == users


def test_options_that_a_data_set_of_ones_own_does_not_know_are_followed_or_refused(build_toy, tmp_path):
    assert len(build_toy(min_interactions=4)) == 20
    counts = json.loads((tmp_path / "toy_upi.build.json").read_text())["counts"]
    assert counts["dropped: fewer than 4 interactions"] == 40
    assert len(build_toy(split="train", users=7)) == 7
    for options in ({"windows": 2}, {"protocol": "matched"}, {"items": 5}, {"whole": True}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}.*restaurants|restaurants.*protocol"):
            build_toy(**options)


def test_terms_that_nobody_wrote_down_are_not_said_to_be_the_projects(build_toy):
    (line,) = (line for line in list_all(None).splitlines() if line.startswith("restaurants"))
    assert line.endswith("terms: not written down here") and "not written down here" in describe(
        DATASETS["restaurants"]
    )
    assert "simulated by this project" in list_all(None).splitlines()[-2]


def test_contributing_names_what_a_builder_may_ask_of_its_job():
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding a data set\n")[2].partition("\n## ")[0]
    for name in ("wanted", "rows", "windows", "whole", "sampled", "protocols", "plain"):
        assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", section), name
