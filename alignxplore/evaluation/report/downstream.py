"""What kind of readers the downstream models are: whether they agree, whether they are as sure as they are right,
whether the place of an item speaks. Used by writing.py and plots.py.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import matplotlib.pyplot as plt

from alignxplore.evaluation.report.segments import ITSELF, measured, reader_of, readers_of
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, label, percent
from alignxplore.evaluation.rows import Score
from alignxplore.judging.judgement import correctness
from alignxplore.plotting import COLOURS
from alignxplore.records import person_of
from alignxplore.statistics import agreement

AGREEMENT_NOTE = (
    "Agree: rows on which both downstream models are right, both wrong or both undecided, bad format aside. κ is what "
    "they agree beyond chance, given how often each is right: 1 is always, 0 is chance. Its interval is a bootstrap "
    "over persons."
)
BIAS_NOTE = (
    "Mean P(A) is 50 where places do not speak, when both orders were asked. First and second: accuracy with the "
    "chosen item in that place. Flips: rows where the two orders name two items. Brier: mean squared distance of "
    "P(chosen) from 1, times 100; 25 is a model that always says one half."
)
BINS = 5  # of confidence, from one half to one
KINDS = ("right", "undecided", "wrong")


def judges_of(rows: Iterable[Score]) -> list[str]:
    """The downstream models, in order of appearance."""
    return [judge for judge in dict.fromkeys(row.judge for row in rows) if judge != "none"]


def _judged(scores: Iterable[Score], protocol: str) -> list[Score]:
    """Scores of pairs that a downstream model had a say in: neither bad format nor missing, nor written answers."""
    return [
        row
        for row in scores
        if row.protocol == protocol
        and row.judge != "none"
        and row.outcome in ("ok", "parse_failure")
        and row.of_pair
        and not row.written
    ]


def _kind(row: Score) -> str:
    assert row.value is not None
    return KINDS[0] if row.value > 0.5 else KINDS[1] if row.value == 0.5 else KINDS[2]


def agreements(scores: Sequence[Score], protocol: str) -> Table | None:
    """One line for each two downstream models and each thing that both were given to read; None for one model
    alone."""
    rows = _judged(scores, protocol)
    body = []
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        mine = [row for row in rows if row.benchmark == benchmark]
        for policy, setting in [*readers_of(mine), ("no summary", "none")]:
            said: dict[str, dict[tuple[str, int], Score]] = {}
            for row in mine:
                if reader_of(row) == (policy, setting):
                    said.setdefault(row.judge, {})[row.record, row.seed] = row
            for a, b in itertools.combinations(judges_of(mine), 2):
                left, right = said.get(a, {}), said.get(b, {})
                both = [key for key in left if key in right]
                if both:
                    found = agreement(
                        [_kind(left[key]) for key in both],
                        [_kind(right[key]) for key in both],
                        [person_of(left[key].user) for key in both],
                    )
                    kappa = MISSING
                    if found.kappa == found.kappa:
                        kappa = f"{found.kappa:.3f}"
                        kappa += "" if found.low != found.low else f" [{found.low:.3f}, {found.high:.3f}]"
                    what = (
                        "raw history" if policy == ITSELF else f"{policy}, {setting}" if setting != "none" else policy
                    )
                    body.append([label(benchmark), f"{a} and {b}", what, str(found.n), percent(found.share), kappa])
    head = ["benchmark", "judges", "read", "n", "agree %", "κ"]
    title = f"Agreement of the downstream models, protocol {protocol}"
    return Table(f"agreement_{protocol}", title, head, body, AGREEMENT_NOTE) if body else None


def _given(row: Score) -> str | None:
    """What a downstream model was given to read; None: another user's summary."""
    if row.policy.startswith("other user's"):
        return None
    return {"full": "summaries", "streaming": "summaries", "direct": "raw history"}.get(row.setting, "nothing")


def reading_habits(scores: Sequence[Score], protocol: str) -> Table | None:
    """One line a benchmark, downstream model and kind of text: order bias and Brier score; None where nothing was
    read from probabilities."""
    groups: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
    for row in _judged(scores, protocol):
        if row.p is not None and (what := _given(row)):
            groups[row.benchmark, row.judge, what].append(row)
    body = []
    for (benchmark, judge, what), mine in groups.items():
        placed = [row for row in mine if row.flips is not None]
        cells = [
            _mean(placed, lambda row: _p_of_a(row.orders)),
            _mean(placed, lambda row: _by_place(row.orders, 0)),
            _mean(placed, lambda row: _by_place(row.orders, 1)),
            _mean(placed, lambda row: _share(flip for flip in row.flips or () if flip is not None)),
            _mean(mine, brier),
        ]
        body.append([label(benchmark), judge, what, str(len({row.record for row in mine})), *cells])
    head = ["benchmark", "judge", "read", "n", "mean P(A) %", "first %", "second %", "flips %", "Brier x 100"]
    title = f"Habits of the downstream models, protocol {protocol}"
    return Table(f"judges_{protocol}", title, head, body, BIAS_NOTE) if body else None


def brier(row: Score) -> float:
    """Squared distance of P(chosen) from 1."""
    assert row.p is not None
    return (1 - row.p) ** 2


def _sure(row: Score) -> float:
    """The probability of the item that was named."""
    assert row.p is not None
    return max(row.p, 1 - row.p)


def _share(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _p_of_a(orders: Iterable[Sequence[float | None]]) -> float | None:
    """Mean P(A) of a row: the chosen item stood as A in the first order, as B in the second."""
    said = [p if place == 0 else 1 - p for pair in orders for place, p in enumerate(pair) if p is not None]
    return _share(said)


def _by_place(orders: Iterable[Sequence[float | None]], place: int) -> float | None:
    return _share(correctness(p) for pair in orders if (p := pair[place]) is not None)


def _mean(rows: Iterable[Score], value: Callable[[Score], float | None]) -> str:
    """Mean over records, with its interval, of what scores say."""
    return estimated(measured(rows, value))


def reliability(scores: Sequence[Score], protocol: str) -> plt.Figure | None:
    """How often each downstream model is right (with 95 % intervals) against how sure it is, after reading summaries:
    one panel a model; on the diagonal both agree. Bars: the share of rows."""
    rows = [row for row in _judged(scores, protocol) if row.p is not None and _given(row) == "summaries"]
    judges = judges_of(rows)
    if not judges:
        return None
    figure, panels = plt.subplots(1, len(judges), figsize=(0.8 + 3.3 * len(judges), 3.6), sharey=True, squeeze=False)
    for panel, judge, colour in zip(panels[0], judges, COLOURS * len(judges)):
        mine = [row for row in rows if row.judge == judge]
        bins: dict[int, list[Score]] = {}
        for row in mine:
            bins.setdefault(min(BINS - 1, int((2 * _sure(row) - 1) * BINS)), []).append(row)
        for place, found in sorted(bins.items()):
            sure = sum(map(_sure, found)) / len(found)
            right = measured(found, lambda row: correctness(row.p or 0.0))
            low, high = (0.0 if edge != edge else abs(right.mean - edge) for edge in (right.low, right.high))
            panel.errorbar(sure, right.mean, yerr=[[low], [high]], fmt="o", color=colour, markersize=5, capsize=2)
            left, width = 0.5 + 0.5 * place / BINS, 0.5 / BINS
            panel.bar(left, len(found) / len(mine), width, align="edge", color=colour, alpha=0.18, edgecolor="white")
        panel.plot([0.5, 1], [0.5, 1], color="#999", linewidth=0.8, linestyle="--")
        score = measured(mine, brier).mean
        panel.set(title=f"{judge} (Brier {score:.3f})", xlabel="confidence, mean of both orders", xlim=(0.5, 1))
        panel.set_ylim(0, 1)
    panels[0][0].set_ylabel("share right (points), share of rows (bars)")
    return figure
