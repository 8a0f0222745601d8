"""The builders on real files: counts as known, and what the shortcuts that need no history give.

REAL_SAMPLES_DIR names a folder with mind/, amazon/, personamem/ and psoups/; without it these tests are skipped. The
expected shortcuts were measured by other code on the same files.
"""

import collections

import numpy as np
import pytest

from alignxplore.baselines.cues import BASELINES
from alignxplore.datasets import get
from alignxplore.datasets.building import Job
from alignxplore.datasets.personamem import options
from alignxplore.datasets.rows import read_rows


@pytest.mark.parametrize("minimum, users", [(2, 458), (9, 49), (17, 6)])
def test_amazon_counts(run, check_rows, samples, minimum, users):
    examples, job = run("amazon", samples / "amazon", min_interactions=minimum)
    check_rows(examples)
    assert len(examples) == users
    assert job.counts["users read"] == 458 and job.counts["items taken by a user"] == 148
    assert job.counts["reviews read"] == 2972 and job.counts["dropped: the user took the same item before"] == 7


@pytest.mark.parametrize("minimum, clicking, users", [(4, 413, 397), (9, 40, 36)])
def test_mind_counts(run, check_rows, samples, minimum, clicking, users):
    """Of the users with enough clicks some lose a repeated click, or one that nothing can be set against."""
    examples, job = run("mind", samples / "mind", min_interactions=minimum)
    check_rows(examples)
    assert 4637 - job.counts[f"users dropped: fewer than {minimum} clicks on listed articles"] == clicking
    assert (
        clicking - job.counts[f"users dropped: fewer than {minimum} interactions with an alternative"]
        == len(examples)
        == users
    )
    assert min(len(x.record.history) + 1 for x in examples) >= minimum
    assert (job.counts["impressions read"], job.counts["users read"], job.counts["news read"]) == (5000, 4637, 2000)
    assert job.counts["impressions with an empty history"] == 107 and job.edition == "5,000 impressions"


def test_style_counts(run, check_rows, samples):
    examples, job = run("friendly_unfriendly", samples / "psoups")
    check_rows(examples)
    assert job.counts["rows read"] == len(examples) == 600
    assert list(collections.Counter(x.record.persona for x in examples).values()) == [300, 300]
    targets = {(x.record.target, x.record.persona) for x in examples}
    assert len(targets) == 128 and len({target.query for target, _ in targets}) == 112
    history = sum(len(x.record.history) for x in examples)
    dropped = sum(count for reason, count in job.counts.items() if reason.startswith("dropped from a history"))
    assert history + dropped == 4 * 600
    assert (
        sum(len(x.record.target.chosen) > len(x.record.target.rejected) for x in examples) == 449
    )  # 74.8 %, ties not counted


def test_personamem_v1_questions(samples):
    path = samples / "personamem" / "questions_32k.csv"
    job = Job(get("personamem"), path.parent)
    rows = [row for _, row in read_rows(path, job)]
    assert len(rows) == 589 and len({row["persona_id"] for row in rows}) == 20
    assert len({row["shared_context_id"] for row in rows}) == 37
    kinds = collections.Counter(row["question_type"] for row in rows)
    assert kinds["track_full_preference_evolution"] == 139 and kinds["recalling_facts_mentioned_by_the_user"] == 17
    assert collections.Counter(row["correct_answer"] for row in rows) == {
        "(a)": 143,
        "(b)": 146,
        "(c)": 158,
        "(d)": 142,
    }
    answers = [options(row, path, number, job) for number, row in enumerate(rows, 1)]
    assert all(len(wrong) == 3 for _, wrong in answers)
    assert sum(len(right) > max(map(len, wrong)) for right, wrong in answers) == 288  # 48.9 %


@pytest.mark.parametrize(
    "name, folder, protocol, measured",
    [
        ("amazon", "amazon", "published", {"popularity": 0.974, "popularity before": 0.947}),
        ("amazon", "amazon", "reviewed", {"popularity": 0.69, "popularity before": 0.645}),
        ("amazon", "amazon", "matched", {"popularity": None, "popularity before": 0.445}),
        ("amazon", "amazon", "matched_both", {"popularity": None, "popularity before": None}),
        ("amazon", "amazon", "liked", {"popularity": None, "popularity before": None}),
        ("mind", "mind", "published", {"popularity": 0.921, "popularity before": 0.63}),
        pytest.param(
            "mind", "mind", "matched", {"popularity": None, "popularity before": 0.55}, marks=pytest.mark.slow
        ),
        ("mind", "mind", "matched_both", {"popularity": None, "popularity before": None}),
        pytest.param(
            "movielens",
            None,
            "published",
            {"popularity": 0.834, "popularity before": 0.812},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "movielens", None, "matched", {"popularity": None, "popularity before": 0.483}, marks=pytest.mark.slow
        ),
        pytest.param(
            "movielens",
            None,
            "matched_both",
            {"popularity": None, "popularity before": None},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "movielens", None, "liked", {"popularity": None, "popularity before": None}, marks=pytest.mark.slow
        ),
        ("friendly_unfriendly", "psoups", "published", {"longer": 0.748}),
        ("friendly_unfriendly", "psoups", "matched", {"longer": None}),
    ],
)
def test_shortcuts(run, samples, latest_small, name, folder, protocol, measured):
    """All users' last items, 20 seeds, of the 610 users of MovieLens 5. None: matched, the 95 % interval over users
    must lie within 50 ± 5."""
    raw = samples / folder if folder else latest_small
    seeds = 20 if folder else 5
    examples = [
        example
        for seed in range(seeds)
        for example in run(name, raw, protocol=protocol, min_interactions=2, seed=seed)[0]
    ]
    for baseline, expected in measured.items():
        by_user = collections.defaultdict(list)
        for example in examples:
            if (score := BASELINES[baseline](*example, 0)) is not None:
                by_user[example.record.user].append(score)
        counts = np.array([len(scores) for scores in by_user.values()])
        means = np.array([np.mean(scores) for scores in by_user.values()])
        mean = np.average(means, weights=counts)
        # The user is the cluster: several draws of one user's rejected item are not several users.
        error = np.sqrt(np.sum((counts * (means - mean)) ** 2)) / counts.sum()
        one_run = np.sqrt(mean * (1 - mean) / (counts.sum() / seeds))  # the measured figure is one run's
        print(f"{name} {protocol} {baseline}: {100 * mean:.2f} ± {196 * error:.2f} %, one run ± {100 * one_run:.2f}")
        if expected is None:
            assert 0.45 < mean - 1.96 * error and mean + 1.96 * error < 0.55
        else:
            assert abs(mean - expected) < 3 * np.hypot(error, one_run)
