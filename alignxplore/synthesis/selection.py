"""RL rows from scored choices: for each user the targets from which there is most to learn.

signal = log P_strong(actual choice) - log P_weak(actual choice). `sft/select_rl.py` runs it, with the thresholds.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path

import numpy as np

from alignxplore import datasets
from alignxplore.command import option
from alignxplore.errors import at_least_one, shares
from alignxplore.records import RecordError, UserRecord, read_object, refuse_same_files, write_json, write_jsonl
from alignxplore.synthesis.streams import all_behaviours, read_behaviours, read_scores


@dataclass(kw_only=True)
class SelectionOptions:
    """Which choices, and how many of them."""

    data: str = option("users, one a line (benchmark contract)")
    strong: str = option("scores.jsonl of the signal model")
    weak: str = option("scores.jsonl of a weaker model: less training, or fewer parameters")
    out: str = option("RL rows to write (JSONL)", MISSING, "--output")
    default_query: str | None = option(datasets.DEFAULT_QUERY, None)
    signal_share: float = option("share of choices kept, those with the highest signal (a)", 0.5, "--a")
    least_strong: float = option("least P_strong(actual choice) (b)", 0.5, "--b")
    strong_quantile: float | None = option(
        "upper quantile of the kept decile of P_strong (c); default: all are kept", None, "--c"
    )
    stages: int = option("targets a user", 2)
    least_slice: int = option("fewest choices that a stage reads", 4)

    def __post_init__(self) -> None:
        shares(self, "signal_share", "least_strong", "strong_quantile")
        at_least_one(self, "stages", "least_slice")


@dataclass
class Scores:
    """The strong model's choices in columns, user after user, and the weak one's beside them (NaN: it has not scored
    that choice)."""

    users: dict[str, int]  # record id → number; user n has the rows ends[n - 1] to ends[n]
    ends: np.ndarray
    places: np.ndarray
    strong: np.ndarray  # log P(actual choice)
    weak: np.ndarray
    unseen: set[str]  # users that the weak model has not scored

    def rows(self, unit: str) -> slice:
        """Where a user's choices stand."""
        number = self.users[unit]
        return slice(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))


def load_scores(strong: str, weak: str) -> Scores:
    """Both files, a line at a time: a user costs an id, a choice three numbers."""
    users: dict[str, int] = {}
    ends, places, values = array("q"), array("i"), array("d")
    for unit, _, scores in read_scores(strong, "logprob"):
        if unit not in users:
            users[unit] = len(users)
            places.extend(scores.keys())
            values.extend(scores.values())
            ends.append(len(places))
    weak_column = np.full(len(places), np.nan)
    all_scores = Scores(users, np.array(ends), np.array(places), np.array(values), weak_column, set(users))
    for unit, _, scores in read_scores(weak, "logprob"):
        if unit in users:
            rows = all_scores.rows(unit)
            all_scores.weak[rows] = [scores.get(place, math.nan) for place in all_scores.places[rows].tolist()]
            all_scores.unseen.discard(unit)
    return all_scores


def scoring_model(path: str) -> str | None:
    """The model behind a file of scores, as signal_model.py recorded it beside them; None where it did not."""
    run_file = Path(path).parent / "run.json"
    return read_object(run_file, "model")["model"] if run_file.is_file() else None


def kept_choices(strong: np.ndarray, weak: np.ndarray, a: float, b: float, c: float | None) -> tuple[np.ndarray, dict]:
    """(which choices pass a, b and c, counts after each); one that the weak model has not scored does not take
    part."""
    candidates = np.flatnonzero(~np.isnan(weak))
    order = candidates[np.argsort(weak[candidates] - strong[candidates], kind="stable")][
        : math.ceil(a * len(candidates))
    ]
    counts = {"choices": len(candidates), "without_weak": len(weak) - len(candidates), "after_a": len(order)}
    order = order[strong[order] >= math.log(b)] if b > 0 else order
    counts["after_b"] = len(order)
    if c is not None and len(order):
        low, high = np.quantile(strong[order], [max(0.0, c - 0.1), c])
        order = order[(strong[order] >= low) & (strong[order] <= high)]
    counts["after_c"] = len(order)
    mask = np.zeros(len(strong), bool)
    mask[order] = True
    return mask, counts


def best_targets(signal: dict[int, float], stages: int, least_slice: int) -> list[int] | None:
    """The `stages` places with the highest sum of signals, each stage reading at least `least_slice` choices; None:
    too few.

    Stage k reads from the target before it (included) up to its own target (excluded).
    """
    chain_to: dict[int, tuple[float, list[int]]] = {p: (s, [p]) for p, s in sorted(signal.items()) if p >= least_slice}
    for _ in range(stages - 1):
        longer_chain_to: dict[int, tuple[float, list[int]]] = {}
        for place in sorted(signal):
            predecessors = [chain_to[p] for p in sorted(chain_to) if place - p >= least_slice]
            if predecessors:
                total, chain = max(predecessors, key=lambda entry: entry[0])
                longer_chain_to[place] = (total + signal[place], [*chain, place])
        chain_to = longer_chain_to
    return max((chain_to[p] for p in sorted(chain_to)), key=lambda entry: entry[0])[1] if chain_to else None


def rl_row(record: UserRecord, positions: Sequence[int], signal: dict[int, float], strong: dict[int, float]) -> dict:
    """A user and its targets in the form of the published RL rows."""
    items = all_behaviours(record)[: positions[-1] + 1]
    places = {"mid_position": positions[0]} if len(positions) == 2 else {}
    return {
        "uid": record.user,
        "history": [asdict(item) for item in items],
        **places,
        "positions": list(positions),
        "signals": [signal[p] for p in positions],
        "logprobs": [strong[p] for p in positions],
    }


def plot(groups: dict[str, Sequence[float]], path: Path) -> None:
    """Histograms of signals; the first group holds all of them."""
    from matplotlib import pyplot

    from alignxplore.plotting import COLOURS, GREY, STYLE, save

    pyplot.switch_backend("Agg")  # files only: works without a screen
    all_values = next(iter(groups.values()))
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for (name, values), colour in zip(groups.items(), (GREY, *COLOURS)):
        axes.hist(
            values,
            bins=np.linspace(min(all_values), max(all_values) + 1e-9, 60),
            label=f"{name} ({len(values)})",
            color=colour,
        )
    axes.set(xlabel="signal: log P strong - log P weak", ylabel="choices", yscale="log")
    axes.legend()
    save(figure, path)


def two_models(args: SelectionOptions) -> dict[str, str | None]:
    """The models behind the two files of scores; RecordError if they are one, whatever its folders are called."""
    strong, weak = scoring_model(args.strong), scoring_model(args.weak)
    if strong is not None and strong.rpartition(":")[2] == str(weak).rpartition(":")[2]:
        raise RecordError(
            f"scores of the same model ({weak}) as the strong ones, so that every signal is 0", args.weak
        )
    return {"strong": strong, "weak": weak}


def require_scores(record: UserRecord, scores: Scores, args: SelectionOptions) -> None:
    """RecordError for a user whom one of the models has not scored."""
    for path, is_missing in ((args.strong, record.id not in scores.users), (args.weak, record.id in scores.unseen)):
        if is_missing:
            remedy = "run signal_model.py score on this file, with the same --default_query"
            raise RecordError(f"no scores in {path}; {remedy}", record.source)


def select(args: SelectionOptions) -> dict:
    """The whole selection; returns the counts."""
    refuse_same_files({"--out": args.out}, {"--data": args.data, "--strong": args.strong, "--weak": args.weak})
    models, scores = two_models(args), load_scores(args.strong, args.weak)
    mask, counts = kept_choices(scores.strong, scores.weak, args.signal_share, args.least_strong, args.strong_quantile)
    signals = scores.strong - scores.weak
    users, targets = 0, array("d")

    def rows() -> Iterator[dict]:
        nonlocal users
        for record in read_behaviours(args.data, args.default_query):
            users += 1
            require_scores(record, scores, args)
            rows_of_user = scores.rows(record.id)
            places, flags = scores.places[rows_of_user].tolist(), mask[rows_of_user]
            signal = {
                place: value for place, value, flag in zip(places, signals[rows_of_user].tolist(), flags) if flag
            }
            if positions := best_targets(signal, args.stages, args.least_slice):
                targets.extend(signal[place] for place in positions)
                yield rl_row(record, positions, signal, dict(zip(places, scores.strong[rows_of_user].tolist())))
        if not targets:
            raise RecordError(
                f"no user has {args.stages} targets left ({counts}); raise --signal_share, lower --least_strong, or "
                "leave --strong_quantile out",
                args.data,
            )

    row_count = write_jsonl(args.out, rows())
    counts |= {
        "users": users,
        "rows": row_count,
        "too_few_targets": users - row_count,
        "models": models,
        "options": asdict(args),
    }
    output = Path(args.out)
    plot(
        {"all choices": signals[~np.isnan(signals)], "after the thresholds": signals[mask], "targets": targets},
        output.with_suffix(".png"),
    )
    write_json(output.with_suffix(".counts.json"), counts)
    return counts


def select_rows(options: SelectionOptions) -> str:
    """Select; returns the counts in words."""
    return ", ".join(f"{name} {value}" for name, value in select(options).items() if name != "options")
