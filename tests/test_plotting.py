"""Plots have one look, colours that every eye tells apart, and two forms."""

import itertools
import re

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb

from alignxplore.guide.site import tracked
from alignxplore.plotting import COLOURS, save
from tests import ROOT

# What a cone that is missing makes of linear RGB (Viénot, Brettel and Mollon 1999).
BLIND = {
    "protanopia": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
    "deuteranopia": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
}


def seen(colour: str, matrix) -> tuple[float, ...]:
    linear = [x**2.2 for x in to_rgb(colour)]
    return tuple(sum(a * b for a, b in zip(row, linear)) for row in matrix)


@pytest.mark.parametrize("blind", BLIND)
def test_the_colours_are_told_apart_by_every_eye(blind):
    colours = [seen(colour, BLIND[blind]) for colour in COLOURS[:4]]  # as many as one plot mostly has
    assert min(sum((x - y) ** 2 for x, y in zip(a, b)) ** 0.5 for a, b in itertools.combinations(colours, 2)) > 0.1


def test_a_plot_is_written_as_png_and_as_svg_and_always_alike(tmp_path):
    plots, open_before = [], plt.get_fignums()  # other tests of this process may have left some
    for name in ("a", "b"):
        figure, axes = plt.subplots()
        axes.plot([1, 2], color=COLOURS[0])
        path = save(figure, tmp_path / name / "plot.png")
        assert path.read_bytes().startswith(b"\x89PNG")
        plots.append(path.with_suffix(".svg").read_text())
    assert "<svg" in plots[0] and plots[0] == plots[1]
    assert plt.get_fignums() == open_before


def test_no_plot_is_written_in_another_way_or_in_colours_of_its_own():
    for path in (
        *(ROOT / "alignxplore").rglob("*.py"),
        *(ROOT / "studies").glob("*.py"),
        *(ROOT / "figures").glob("*.py"),
    ):
        text = path.read_text(encoding="utf-8")
        if path.name != "plotting.py":
            assert not re.search(r"savefig\((?!out, format=\"svg\")", text), path
            assert not [x for x in re.findall(r"\"(#[0-9a-f]{6})\"", text) if len({x[1:3], x[3:5], x[5:]}) > 1], path


def test_each_picture_of_the_repository_has_both_forms_and_a_page_that_shows_it():
    pictures = {
        path.relative_to(ROOT) for folder in ("figures", "docs/figures") for path in (ROOT / folder).glob("*.png")
    }
    pages = [ROOT / name for name in tracked() if name.endswith(".md")]
    targets = [(page, to) for page in pages for to in re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", page.read_text())]
    assert {(page.parent / to).resolve().relative_to(ROOT) for page, to in targets} == pictures
    assert [path for path in pictures if not (ROOT / path).with_suffix(".svg").exists()] == []
