"""From judgements to numbers: one score a record, then one row of results a cell, with intervals clustered by person
and by chosen item."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignxplore.errors import UserError
from alignxplore.evaluation import offers
from alignxplore.journal import OK, TOO_LONG
from alignxplore.judging.letters import Judgement, correctness
from alignxplore.records import Interaction, Offer, RecordError, content_hash, person_of, read_jsonl
from alignxplore.statistics import auc, design_effect, estimate

if TYPE_CHECKING:
    from alignxplore.evaluation.conditions import Cell, Question

# What a row scores of which nothing can be judged: bad format tells the downstream model nothing (choice); in protocol
# paper it is judged as it is, and only what was never written is wrong.
BAD_FORMAT_SCORE = {"choice": 0.5, "paper": 0.0}
WRITTEN = ("win", "tie", "lose", "bleu", "rouge_l")  # beside the score of a written answer
KEY = ("policy", "setting", "benchmark", "judge", "protocol")


def score_rows(
    cell: "Cell", judge: str, protocol: str, answers: Sequence[Sequence[dict | None]], places: bool = True
) -> list[dict]:
    """One score a record of a cell.

    Args:
        answers: per question the journal rows of its judgements, in the order of its summaries; empty for fixed
            scores.
        places: the judge saw both items in one question; one that is asked about each by itself cannot go by places.

    Returns:
        Rows with `outcome` ok, bad_format, parse_failure or missing, `value` in [0, 1] (None: missing; of a choice
        among k items accuracy@1, beside the other measures, `k` and `chance`), `dropped`, the
        oldest interactions that did not fit the window of who read the history (None: nobody did, or it is not known),
        `shown_otherwise` (`Question.otherwise`), and `unread`, the answers that could not be parsed.
    """
    rows = []
    for i, question in enumerate(cell.questions):
        target = question.record.target
        if isinstance(target, Offer):
            found = _offered(cell, i, target, answers)
        elif cell.fixed:
            found = {"value": cell.fixed[i], "outcome": "ok"}
        else:
            found = _score(question, protocol, answers[i], places)
        if found["value"] is None:
            found["outcome"] = "missing"
        rows.append(
            {
                "policy": cell.policy,
                "setting": cell.setting,
                "benchmark": cell.benchmark.name,
                "judge": judge,
                "protocol": protocol,
                "seed": cell.seed,
                "record": question.record.id,
                "user": question.record.user,
                "dropped": question.dropped if question.history is None else _not_shown(answers[i]),
                "shown_otherwise": question.otherwise,
                "target": _target_hash(target),
                "item": content_hash(target.chosen),
                "unread": [text for row in answers[i] if row for text in _unread_answers(row)] if answers else [],
            }
            | found
        )
    return rows


def _target_hash(target: Interaction) -> str:
    if isinstance(target, Offer):
        return content_hash([target.query, target.taken, target.passed_over])
    return content_hash([target.query, target.chosen, target.rejected])


def _offered(cell: "Cell", place: int, offer: Offer, answers: Sequence[Sequence[dict | None]]) -> dict:
    """The score of a choice among k items, from the candidates' scores of a cue or from a judge's answers."""
    if cell.ranked is None:
        return offers.score(cell.questions[place], offer, answers[place])
    scores = cell.ranked[place]
    return offers.unknown(offer) if scores is None else offers.fields(offer, scores) | {"outcome": "ok"}


def _score(question: "Question", protocol: str, answers: Sequence[dict | None], places: bool) -> dict:
    if protocol == "paper" and question.skipped:
        return {"value": None, "outcome": "missing"}
    # What does not fit the window of who reads it tells nothing, be it a policy or a reader of the raw history. Where
    # a summary was written, it is the items that do not fit: nobody's fault, so the row is missing for good.
    too_long = any(row is not None and row["status"] == TOO_LONG for row in answers)
    if question.problem and not answers or too_long and question.history is not None:
        return {"value": BAD_FORMAT_SCORE[protocol], "outcome": "bad_format"}
    found = _judged(protocol, answers, places)
    return found | {"outcome": "bad_format"} if question.problem else found


def _judged(protocol: str, answers: Sequence[dict | None], places: bool) -> dict:
    given = [row for row in answers if row is not None and row["status"] == OK]
    if not given:
        return {"value": None, "outcome": "missing"}
    if "score" in given[0]:  # of a written answer (hicupid.py)
        found = {name: sum(row[name] for row in given) / len(given) for name in ("score", "bleu", "rouge_l")}
        verdicts = [verdict for row in given for verdict in row["verdicts"]]
        return {
            "value": found.pop("score"),
            "outcome": "parse_failure" if any(row["unparsed"] for row in given) else "ok",
            **found,
            **{name: verdicts.count(name) / len(verdicts) for name in ("win", "tie", "lose")},
        }
    if protocol == "paper":
        right = [float(row["selection"] == f"Item {row['letter']}") for row in given]
        unparsed = any(row["selection"] is None for row in given)
        return {"value": sum(right) / len(right), "outcome": "parse_failure" if unparsed else "ok"}
    judged = [Judgement(row["status"], row["p_chosen_first"], row["p_chosen_second"], row["mass"]) for row in given]
    masses = [j.mass for j in judged if j.mass is not None]
    return {
        "value": sum(j.correct for j in judged) / len(judged),
        "outcome": "parse_failure" if any(row.get("unparsed") for row in given) else "ok",
        "p": sum(j.p for j in judged) / len(judged),
        "orders": [[j.p_chosen_first, j.p_chosen_second] for j in judged],
        "flips": [j.flipped for j, row in zip(judged, given) if not row.get("unparsed")] if places else None,
        "mass": sum(masses) / len(masses) if masses else None,
    }


def _unread_answers(row: dict) -> list[str]:
    """What a downstream model answered, or an evaluator said of it, that could not be parsed."""
    if "verdicts" in row:
        return [text for text, verdict in zip(row.get("said", ()), row["verdicts"]) if verdict is None]
    return row.get("unread", [])


def _not_shown(answers: Sequence[dict | None]) -> int | None:
    """Oldest interactions that a judge of the direct setting could not be shown; None where it was not asked."""
    known = [row["dropped"] for row in answers if row is not None and "dropped" in row]
    return sum(known) if known else None


def read_scores(folder: Path) -> Iterator[dict]:
    """The score rows that `evaluate.py` left in a folder.

    Raises:
        RecordError: they do not say which item was chosen.
        UserError: there are none.
    """
    if not (folder / "scores.jsonl").is_file():
        raise UserError(
            f"{folder}: nothing is scored here (scores.jsonl: no such file); run evaluate.py --out {folder} first"
        )
    for line, row in read_jsonl(folder / "scores.jsonl"):
        if "item" not in row:
            raise RecordError(
                "missing: an earlier version wrote these scores; run evaluate.py again, which asks nothing anew",
                folder / "scores.jsonl",
                line,
                "item",
            )
        yield row


def result_rows(scores: Iterable[dict]) -> list[dict]:
    """One row of results for each (policy, setting, benchmark, judge, protocol), in order of appearance."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in scores:
        groups[tuple(row[k] for k in KEY)].append(row)
    return [_result_row(dict(zip(KEY, key)), rows) for key, rows in groups.items()]


def values_by_record(rows: Iterable[dict], field: str = "value") -> dict[str, float]:
    """Mean score of each record over generation seeds; records without any score are left out."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get(field) is not None:
            values[row["record"]].append(row[field])
    return {record: float(np.mean(found)) for record, found in values.items()}


def shared(rows: Iterable[dict], records: Iterable[str]) -> tuple[list[str], list[str]]:
    """Person (`user` and `user#2` are one) and chosen item of each of `records`: what makes them depend on each
    other."""
    place = {row["record"]: (person_of(row["user"]), row["item"]) for row in rows}
    found = [place[record] for record in records]
    return [person for person, _ in found], [item for _, item in found]


def _bad_is_wrong(row: dict) -> dict:
    return row | {"value": 0.0} if row["outcome"] == "bad_format" else row


def _share(rows: Sequence[dict], outcome: str) -> float:
    return sum(row["outcome"] == outcome for row in rows) / len(rows)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _result_row(key: dict, rows: list[dict]) -> dict:
    values = values_by_record(rows)
    persons, items = shared(rows, values)
    overall = estimate(list(values.values()), persons, items, by_rule=by_rule(rows))
    # A judge's parse failure says nothing about the summary.
    judged = [row for row in rows if row["outcome"] not in ("bad_format", "missing")]
    first, second = _by_order(judged)
    placed = [row for row in judged if row.get("flips") is not None]
    placed_first, placed_second = _by_order(placed)
    flips = [float(flip) for row in placed for flip in row["flips"] if flip is not None]
    by_seed = defaultdict(list)
    for row in rows:
        by_seed[row["seed"]].append(row["value"])
    seed_means = [mean for mean in map(_mean, by_seed.values()) if mean is not None]
    return key | {
        "n": overall.n,
        "accuracy": _unless_nan(overall.mean),
        "ci_low": _unless_nan(overall.low),
        "ci_high": _unless_nan(overall.high),
        "clusters": overall.clusters,
        "items": len(set(items)),
        "two_way": overall.two_way,
        "design_effect": design_effect(list(values.values()), persons, items),
        "bad_format": _share(rows, "bad_format"),
        "parse_failures": _share(rows, "parse_failure"),
        "coverage": 1 - _share(rows, "missing"),
        "truncated": _mean(float(row["dropped"] > 0) for row in rows if row.get("dropped") is not None),
        "shown_otherwise": _mean(row.get("shown_otherwise") for row in rows),
        "accuracy_bad_wrong": _mean(values_by_record(map(_bad_is_wrong, rows)).values()),
        "accuracy_well_formed": _mean(row["value"] for row in judged),
        "mean_p": _mean(row.get("p") for row in judged),
        "mass": _mean(row.get("mass") for row in judged),
        "accuracy_chosen_first": _mean(correctness(p) for p in placed_first),
        "accuracy_chosen_second": _mean(correctness(p) for p in placed_second),
        "flip_rate": _mean(flips),
        "auc": _unless_nan(auc([*first, *(1 - p for p in second)], [True] * len(first) + [False] * len(second)))
        if first or second
        else None,
        **{name: _mean(row.get(name) for row in rows) for name in WRITTEN if any(name in row for row in rows)},
        "seeds": sorted(by_seed),
        "seed_spread": float(np.std(seed_means, ddof=1)) if len(seed_means) > 1 else None,
        **_among_k(rows, persons, items),
    }


def by_rule(rows: Iterable[dict]) -> bool | None:
    """Whether all scores are chance by rule; None: pairs, whose values say so."""
    said = [row["by_rule"] for row in rows if row["value"] is not None and "by_rule" in row]
    return all(said) if said else None


def _among_k(rows: Sequence[dict], persons: Sequence[str], items: Sequence[str]) -> dict:
    """The measures of a choice among k items, each with its interval, and what chance gives; nothing of pairs."""
    if not any("k" in row for row in rows):
        return {}
    found: dict[str, float | None] = {
        "k": _mean(row.get("k") for row in rows),
        "chance": _mean(row.get("chance") for row in rows),
        "auc": _mean(row.get("auc_each") for row in rows),
    }
    for name in offers.MEASURES:
        whole = estimate(list(values_by_record(rows, name).values()), persons, items, by_rule=by_rule(rows))
        found |= {name: _unless_nan(whole.mean)}
        found |= {f"{name}_low": _unless_nan(whole.low), f"{name}_high": _unless_nan(whole.high)}
    return found


def _by_order(rows: Iterable[dict]) -> tuple[list[float], list[float]]:
    """P(chosen) with the chosen item first, and with it second."""
    pairs = [pair for row in rows for pair in row.get("orders", ())]
    first, second = ([pair[place] for pair in pairs if pair[place] is not None] for place in (0, 1))
    return first, second


def _unless_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
