"""Popularity over all time and before the target, on real samples: both stand in the tables of both protocols, as a
count by hand has them, and matched negatives leave neither anything to go by."""

from statistics import fmean

import pytest

from alignxplore.datasets import get
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job
from alignxplore.datasets.sidecars import popularity_path
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.evaluation.conditions import of_cues
from alignxplore.evaluation.report.layouts import details
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.scores import score_rows
from alignxplore.records import read_jsonl

CUES = {"popularity": "", "popularity before": "_before"}
WITHIN = {"published": (), "matched": ("popularity",), "matched_both": tuple(CUES)}  # 50 ± 5 by these counts


@pytest.mark.parametrize("protocol", WITHIN)
@pytest.mark.parametrize("name", ["amazon", "mind"])
def test_both_counts_stand_in_the_tables_of_both_protocols(samples, tmp_path, name, protocol):
    path = tmp_path / f"{name}_upi.jsonl"
    build(Job(get(name), samples / name, protocol, min_interactions=2), path)
    (benchmark,) = load_benchmarks([str(path)])
    scores = [
        row
        for cell in of_cues(benchmark, list(CUES))
        for way in ("choice", "paper")
        for row in score_rows(cell, "none", way)
    ]
    results, counts = result_rows(scores), [row for _, row in read_jsonl(popularity_path(path))]
    for way in ("choice", "paper"):
        table = details(results, way)
        cells = {line[0]: line[table.head.index("accuracy %")] for line in table.body}
        for cue, suffix in CUES.items():
            pairs = [(row["chosen" + suffix], row["rejected" + suffix]) for row in counts if "chosen" + suffix in row]
            share = 100 * fmean((a > b) + 0.5 * (a == b) for a, b in pairs)
            assert cells[cue].startswith(f"{share:.2f} ["), (way, cue, len(pairs))
            # Of MIND's real choices 75 have a time: one draw of their negatives says little. 20 draws do, in
            # tests/datasets/test_real_samples.py.
            if cue in WITHIN[protocol] and len(pairs) > 100:
                assert 45 < share < 55, (way, cue)
            assert protocol != "published" or share > 60, (way, cue)
