"""The tests of the project; the tree mirrors that of `alignxplore/` and of the folders of scripts."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
