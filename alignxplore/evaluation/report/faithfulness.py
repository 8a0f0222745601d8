"""What `eval/faithfulness.py` found, for the report: what summaries state, by the verdict of a downstream model; how
far its verdicts agree with what is known of the items; for the browser of samples each statement with its evidence.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from alignxplore.evaluation.evidence import (
    CONTRADICTED,
    NOT_THERE,
    SUPPORTED,
    VERDICTS,
    Evidence,
    LinkedStatement,
    Links,
)
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, label
from alignxplore.records import person_of
from alignxplore.statistics import Agreement, Estimate, agreement, share_of_outcomes

NOTE = (
    "Well-formed summaries. Supported: more choices that the policy was shown speak for the statement than against "
    "it, as this downstream model reads them; contradicted: more against it; not there: none do, or as many. "
    "Evidence: choices that speak for a statement. Intervals: 95 %, over persons."
)
KNOWN_NOTE = (
    "From the items themselves: precision is the share of statements whose attribute was chosen more often than "
    "passed over (or the reverse, of a dislike), recall the share of attributes that lead by 2 and more and are told. "
    "Agree and κ (Cohen, with its interval over persons): the downstream model's verdicts against these, of single "
    "choices and of whole statements. Only statements about one known attribute count."
)

Cell = tuple[str, str, str, str]  # benchmark, judge, policy, setting


def tables(evidence: Sequence[Evidence]) -> list[Table]:
    """The tables that there is something for."""
    groups: dict[Cell, list[Evidence]] = defaultdict(list)
    for entry in evidence:
        groups[entry.benchmark, entry.judge, entry.policy, entry.setting].append(entry)
    result = [_shares(groups)] if groups else []
    if any(entry.strong is not None for entry in evidence):
        result.append(_known(groups))
    return result


def link(samples: Iterable[dict], evidence: Iterable[Evidence]) -> None:
    """Put the statements of each summary into its sample, by downstream model."""
    by_summary = defaultdict(list)
    for entry in evidence:
        by_summary[entry.benchmark, entry.record, entry.policy, entry.setting, entry.seed].append(entry)
    for sample in samples:
        for summary in sample["summaries"]:
            key = (summary["policy"], summary["setting"], summary["seed"])
            entries = by_summary.get((sample["benchmark"], sample["record"], *key))
            if entries:
                summary["evidence"] = {
                    entry.judge: [_linked(statement) for statement in entry.statements] for entry in entries
                }


def _linked(statement: LinkedStatement) -> dict:
    return {
        "start": statement.start,
        "end": statement.end,
        "verdict": statement.links.verdict,
        "supports": statement.links.supports,
        "contradicts": statement.links.contradicts,
    }


def _shares(groups: dict[Cell, list[Evidence]]) -> Table:
    body = []
    for cell, group in groups.items():
        user_links = [(entry.user, statement.links) for entry in group for statement in entry.statements]
        verdicts = [_share(user_links, verdict) for verdict in VERDICTS]
        support_counts = [len(links.supports) for _, links in user_links]
        evidence = sum(support_counts) / len(support_counts) if support_counts else None
        body.append(
            [
                *_names(cell),
                str(len(group)),
                f"{len(user_links) / len(group):.2f}",
                *map(estimated, verdicts),
                MISSING if evidence is None else f"{evidence:.2f}",
            ]
        )
    head = ["benchmark", "downstream model", "policy", "setting", "summaries", "statements each"]
    head += [f"{verdict} %" for verdict in (SUPPORTED, CONTRADICTED, NOT_THERE)] + ["evidence"]
    return Table("faithfulness", "What summaries state, and whether the history bears it out", head, body, NOTE)


def _known(groups: dict[Cell, list[Evidence]]) -> Table:
    body = []
    for cell, group in groups.items():
        # (evidence, links by the downstream model, links by the items) of each statement
        triples = [(x, y.links, y.true) for x in group for y in x.statements if y.true is not None]
        users = [entry.user for entry, _, _ in triples]
        precision = _share([(entry.user, truth) for entry, _, truth in triples], SUPPORTED)
        recall = [(entry.user, i < (entry.recalled or 0)) for entry in group for i in range(entry.strong or 0)]
        by_statement = _agreement([x.verdict for _, x, _ in triples], [x.verdict for _, _, x in triples], users)
        verdicts, truths, owners = [], [], []
        for entry, links, truth in triples:
            for place in entry.seen:
                verdicts.append(_bearing(links, place))
                truths.append(_bearing(truth, place))
                owners.append(entry.user)
        by_choice = _agreement(verdicts, truths, owners)
        shares = [estimated(precision), estimated(share_of_outcomes(recall))]
        body.append([*_names(cell), str(len(triples)), *shares, *by_choice, *by_statement])
    head = ["benchmark", "downstream model", "policy", "setting", "statements", "precision %", "recall %"]
    head += ["choices: agree %", "choices: κ", "statements: agree %", "statements: κ"]
    title = "What is known of the items: precision and recall of statements, and the downstream model's verdicts"
    return Table("evidence", title, head, body, KNOWN_NOTE)


def _names(cell: Cell) -> list[str]:
    benchmark, *others = cell
    return [label(benchmark), *others]


def _bearing(links: Links, place: int) -> int:
    return (place in links.supports) - (place in links.contradicts)


def _share(user_links: Iterable[tuple[str, Links]], verdict: str) -> Estimate:
    return share_of_outcomes([(user, links.verdict == verdict) for user, links in user_links])


def _agreement(verdicts: Sequence[Hashable], truths: Sequence[Hashable], users: Sequence[str]) -> list[str]:
    if not verdicts:
        return [MISSING, MISSING]
    result: Agreement = agreement(verdicts, truths, [person_of(user) for user in users])
    if result.kappa != result.kappa:
        return [f"{100 * result.share:.2f}", MISSING]
    return [f"{100 * result.share:.2f}", f"{result.kappa:.2f} [{result.low:.2f}, {result.high:.2f}]"]
