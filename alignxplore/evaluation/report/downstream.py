"""What kind of readers the downstream models are: whether they agree, whether they are as sure as they are right,
whether the place of an item speaks. Used by writing.py and plots.py.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import matplotlib.pyplot as plt

from alignxplore.evaluation import metrics
from alignxplore.evaluation.report.segments import ITSELF, measured, reader_of, readers_of
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, label, percent
from alignxplore.evaluation.worth import Score
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
        benchmark_rows = [row for row in rows if row.benchmark == benchmark]
        for policy, setting in [*readers_of(benchmark_rows), ("no summary", "none")]:
            scores_of: dict[str, dict[tuple[str, int], Score]] = {}
            for row in benchmark_rows:
                if reader_of(row) == (policy, setting):
                    scores_of.setdefault(row.judge, {})[row.record, row.seed] = row
            for a, b in itertools.combinations(judges_of(benchmark_rows), 2):
                first, second = scores_of.get(a, {}), scores_of.get(b, {})
                keys = [key for key in first if key in second]
                if keys:
                    result = agreement(
                        [_kind(first[key]) for key in keys],
                        [_kind(second[key]) for key in keys],
                        [person_of(first[key].user) for key in keys],
                    )
                    kappa = MISSING
                    if result.kappa == result.kappa:
                        kappa = f"{result.kappa:.3f}"
                        kappa += "" if result.low != result.low else f" [{result.low:.3f}, {result.high:.3f}]"
                    material = (
                        "raw history" if policy == ITSELF else f"{policy}, {setting}" if setting != "none" else policy
                    )
                    body.append(
                        [label(benchmark), f"{a} and {b}", material, str(result.n), percent(result.share), kappa]
                    )
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
        if row.p is not None and (material := _given(row)):
            groups[row.benchmark, row.judge, material].append(row)
    body = []
    for (benchmark, judge, material), group in groups.items():
        pair_rows = [row for row in group if row.flips is not None]
        cells = [
            _mean(pair_rows, lambda row: _p_of_a(row.orders)),
            _mean(pair_rows, lambda row: _by_place(row.orders, 0)),
            _mean(pair_rows, lambda row: _by_place(row.orders, 1)),
            _mean(pair_rows, lambda row: _share(flip for flip in row.flips or () if flip is not None)),
            _mean(group, brier),
        ]
        body.append([label(benchmark), judge, material, str(len({row.record for row in group})), *cells])
    of_places = (metrics.accuracy_chosen_first, metrics.accuracy_chosen_second, metrics.flip_rate)
    head = ["benchmark", "judge", "read", "n", "mean P(A) %"]
    head += [*(metric.heading for metric in of_places), "Brier x 100"]
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
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None


def _p_of_a(orders: Iterable[Sequence[float | None]]) -> float | None:
    """Mean P(A) of a row: the chosen item stood as A in the first order, as B in the second."""
    shares = [p if place == 0 else 1 - p for pair in orders for place, p in enumerate(pair) if p is not None]
    return _share(shares)


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
        judge_rows = [row for row in rows if row.judge == judge]
        bins: dict[int, list[Score]] = {}
        for row in judge_rows:
            bins.setdefault(min(BINS - 1, int((2 * _sure(row) - 1) * BINS)), []).append(row)
        for place, bin_rows in sorted(bins.items()):
            confidence = sum(map(_sure, bin_rows)) / len(bin_rows)
            estimate = measured(bin_rows, lambda row: correctness(row.p or 0.0))
            low, high = (0.0 if edge != edge else abs(estimate.mean - edge) for edge in (estimate.low, estimate.high))
            panel.errorbar(
                confidence, estimate.mean, yerr=[[low], [high]], fmt="o", color=colour, markersize=5, capsize=2
            )
            edge_x, width = 0.5 + 0.5 * place / BINS, 0.5 / BINS
            panel.bar(
                edge_x,
                len(bin_rows) / len(judge_rows),
                width,
                align="edge",
                color=colour,
                alpha=0.18,
                edgecolor="white",
            )
        panel.plot([0.5, 1], [0.5, 1], color="#999", linewidth=0.8, linestyle="--")
        score = measured(judge_rows, brier).mean
        panel.set(title=f"{judge} (Brier {score:.3f})", xlabel="confidence, mean of both orders", xlim=(0.5, 1))
        panel.set_ylim(0, 1)
    panels[0][0].set_ylabel("share right (points), share of rows (bars)")
    return figure
