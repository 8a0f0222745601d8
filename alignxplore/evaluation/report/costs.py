"""What summaries cost, and whether longer ones are worth it: one table, and one plot of length against accuracy. Used
by writing.py and plots.py.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from alignxplore.evaluation.comparisons import COMPARED, COMPARED_NOTE, compare, compared
from alignxplore.evaluation.costs import SHORTER, Cost
from alignxplore.evaluation.report import lines
from alignxplore.evaluation.report.segments import chance_of, measured
from alignxplore.evaluation.report.tables import MISSING, Table, label, percent
from alignxplore.evaluation.worth import Score
from alignxplore.statistics import Estimate

NOTE = (
    "Means over all summaries, bad format included; a stream's stages are added up, but for the summary, which is the "
    "last one. Reasoning is all that was generated beside the summaries. Cut: answers that had all the tokens they "
    "were allowed. Seconds pass from asking to the reply while other requests are in flight: they compare policies "
    "of one run, not machines. GPU-seconds: the time that a whole set took, times --gpus, shared alike."
)
BINS = 5  # of summary length, with as many summaries in each
LEAST = 0.1  # of all summaries that a point is of: a point of two would hide the others

Policy = tuple[str, str]  # policy and setting


def _mean(values: Iterable[float | None], digits: int = 1) -> str:
    numbers = [value for value in values if value is not None]
    return f"{np.mean(numbers):,.{digits}f}" if numbers else MISSING


def _share(count: int, of: int) -> str:
    return percent(count / of)


def _reasons(costs: Sequence[Cost]) -> str:
    """Bad format by reason, the most frequent first, in % of all summaries."""
    counts = Counter(cost.problem for cost in costs if cost.problem)
    return "; ".join(f"{reason} {_share(count, len(costs))}" for reason, count in counts.most_common()) or MISSING


def costs_table(costs: Sequence[Cost]) -> Table | None:
    """One line a policy, setting and benchmark."""
    groups: dict[tuple[str, str, str], list[Cost]] = defaultdict(list)
    for cost in costs:
        groups[cost.benchmark, cost.policy, cost.setting].append(cost)
    body = [
        [
            label(benchmark),
            policy,
            setting,
            str(len(group)),
            _mean(cost.prompt_tokens for cost in group),
            _mean(cost.tokens for cost in group),
            _mean(cost.reasoning_tokens for cost in group),
            _mean(cost.summary_tokens for cost in group),
            _mean(cost.words for cost in group),
            _mean((cost.seconds for cost in group), 2),
            _mean((cost.gpu_seconds for cost in group), 2),
            _share(sum(cost.cut for cost in group), len(group)),
            _reasons(group),
        ]
        for (benchmark, policy, setting), group in groups.items()
    ]
    head = ["benchmark", "policy", "setting", "n", "prompt tokens", "new tokens", "of them reasoning"]
    head += ["summary tokens", "summary words", "seconds", "GPU-seconds", "cut %", "bad format by reason, %"]
    return Table("costs", "What a summary takes", head, body, NOTE) if body else None


def brevity(costs: Sequence[Cost], scores: Sequence[Score], protocol: str) -> Table | None:
    """What asking for short summaries (--summary_tokens) costs in points, against the same policy without; None where
    nobody was asked."""
    tokens: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for cost in costs:
        if cost.summary_tokens is not None:
            tokens[cost.policy, cost.setting, cost.benchmark].append(cost.summary_tokens)
    groups: dict[tuple[str, str, str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if score.protocol == protocol:
            groups[score.policy, score.setting, score.benchmark, score.judge].append(score)
    names, tests = [], []
    for (policy, setting, benchmark, judge), rows in groups.items():
        full_policy, shorter, limit = policy.rpartition(SHORTER)
        longer = groups.get((full_policy, setting, benchmark, judge))
        test = compare(longer, rows) if shorter and limit.isdigit() and longer else None
        if test:
            lengths = [_mean(tokens[name, setting, benchmark]) for name in (full_policy, policy)]
            names.append([label(benchmark), judge, full_policy, setting, limit, *lengths])
            tests.append(test)
    body = [line + columns for line, columns in zip(names, compared(tests))]
    head = ["benchmark", "downstream model", "policy", "setting", "asked for", "tokens without", "tokens with"]
    title = f"What short summaries cost, protocol {protocol}"
    return Table(f"brevity_{protocol}", title, head + COMPARED, body, COMPARED_NOTE) if body else None


def accuracy_by_length(costs: Sequence[Cost], scores: Sequence[Score], protocol: str) -> plt.Figure | None:
    """Accuracy against the number of words of well-formed summaries: one panel a benchmark, one line a policy and
    setting, a point a fifth of its summaries; the first downstream model alone."""
    words = {
        (cost.policy, cost.setting, cost.benchmark, cost.seed, cost.record): cost.words
        for cost in costs
        if not cost.problem
    }
    rows = [row for row in scores if row.protocol == protocol and row.outcome in ("ok", "parse_failure")]
    pairs_of: dict[str, dict[Policy, list[tuple[int, Score]]]] = defaultdict(lambda: defaultdict(list))
    judge = None
    for row in rows:
        key = (row.policy, row.setting, row.benchmark, row.seed, row.record)
        if key in words and (judge := judge or row.judge) == row.judge:
            pairs_of[row.benchmark][row.policy, row.setting].append((words[key], row))
    if not pairs_of:
        return None
    figure, panels = lines.panels_for(len(pairs_of))
    policies = list(dict.fromkeys(policy for policy_pairs in pairs_of.values() for policy in policy_pairs))
    for panel, (benchmark, policy_pairs) in zip(panels, pairs_of.items()):
        for policy, pairs in policy_pairs.items():
            lines.line(panel, _by_length(pairs), policies.index(policy))
        chance = chance_of(row for pairs in policy_pairs.values() for _, row in pairs)
        panel.axhline(100 * chance, color="#999", linewidth=0.8, linestyle="--")
        panel.set_title(label(benchmark), fontsize=10)
        middle, (low, high) = round(sum(panel.get_xlim()) / 2), panel.get_xlim()
        panel.set_xlim(min(low, middle - 1), max(high, middle + 1))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("words of the summary", fontsize=9)
    names = [f"{policy}, {setting}" for policy, setting in policies]
    lines.legend(figure, names, f"downstream model {judge}, protocol {protocol}")
    return figure


def _by_length(pairs: list[tuple[int, Score]]) -> list[tuple[float, Estimate]]:
    """(mean length, accuracy) of each fifth of the summaries; those of one length share a point, and few of another
    length join their neighbours."""
    lengths_N = np.array([length for length, _ in pairs])
    edges = np.quantile(lengths_N, np.linspace(0, 1, BINS + 1)[1:-1])
    bins: dict[int, list[tuple[int, Score]]] = defaultdict(list)
    for place, pair in zip(np.searchsorted(edges, lengths_N, side="left").tolist(), pairs):
        bins[place].append(pair)
    groups: list[list[tuple[int, Score]]] = []
    for _, bin_pairs in sorted(bins.items()):
        if groups and min(len(groups[-1]), len(bin_pairs)) < LEAST * len(pairs):
            groups[-1] += bin_pairs
        else:
            groups.append(bin_pairs)
    return [(float(np.mean([length for length, _ in group])), measured(row for _, row in group)) for group in groups]
