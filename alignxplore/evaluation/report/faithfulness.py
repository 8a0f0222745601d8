"""What `eval/faithfulness.py` found, for the report: what summaries state, by the verdict of a downstream model; how
far its verdicts agree with what is known of the items; for the browser of samples each statement with its evidence.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from alignxplore.evaluation.evidence import CONTRADICTED, NOT_THERE, SUPPORTED, VERDICTS, Evidence, Links, Told
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, label
from alignxplore.records import person_of
from alignxplore.statistics import Agreement, Estimate, agreement, estimate

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


def tables(found: Sequence[Evidence]) -> list[Table]:
    """The tables that there is something for."""
    groups: dict[Cell, list[Evidence]] = defaultdict(list)
    for one in found:
        groups[one.benchmark, one.judge, one.policy, one.setting].append(one)
    made = [_shares(groups)] if groups else []
    if any(one.strong is not None for one in found):
        made.append(_known(groups))
    return made


def link(samples: Iterable[dict], found: Iterable[Evidence]) -> None:
    """Put the statements of each summary into its sample, by downstream model."""
    by_summary = defaultdict(list)
    for one in found:
        by_summary[one.benchmark, one.record, one.policy, one.setting, one.seed].append(one)
    for sample in samples:
        for summary in sample["summaries"]:
            key = (summary["policy"], summary["setting"], summary["seed"])
            linked = by_summary.get((sample["benchmark"], sample["record"], *key))
            if linked:
                summary["evidence"] = {one.judge: [_linked(told) for told in one.statements] for one in linked}


def _linked(told: Told) -> dict:
    return {
        "start": told.start,
        "end": told.end,
        "verdict": told.links.verdict,
        "supports": told.links.supports,
        "contradicts": told.links.contradicts,
    }


def _shares(groups: dict[Cell, list[Evidence]]) -> Table:
    body = []
    for cell, mine in groups.items():
        told = [(one.user, said.links) for one in mine for said in one.statements]
        verdicts = [_share(told, verdict) for verdict in VERDICTS]
        evidence = sum(len(links.supports) for _, links in told) / len(told) if told else None
        body.append(
            [
                *_names(cell),
                str(len(mine)),
                f"{len(told) / len(mine):.2f}",
                *map(estimated, verdicts),
                MISSING if evidence is None else f"{evidence:.2f}",
            ]
        )
    head = ["benchmark", "downstream model", "policy", "setting", "summaries", "statements each"]
    head += [f"{verdict} %" for verdict in (SUPPORTED, CONTRADICTED, NOT_THERE)] + ["evidence"]
    return Table("faithfulness", "What summaries state, and whether the history bears it out", head, body, NOTE)


def _known(groups: dict[Cell, list[Evidence]]) -> Table:
    body = []
    for cell, mine in groups.items():
        told = [(one, said.links, said.true) for one in mine for said in one.statements if said.true is not None]
        users = [one.user for one, _, _ in told]
        precision = _share([(one.user, true) for one, _, true in told], SUPPORTED)
        recall = [(one.user, i < (one.recalled or 0)) for one in mine for i in range(one.strong or 0)]
        whole = _agreement([x.verdict for _, x, _ in told], [x.verdict for _, _, x in told], users)
        judged, known, whose = [], [], []
        for one, links, true in told:
            for place in one.seen:
                judged.append(_bearing(links, place))
                known.append(_bearing(true, place))
                whose.append(one.user)
        single = _agreement(judged, known, whose)
        body.append([*_names(cell), str(len(told)), estimated(precision), estimated(_mean(recall)), *single, *whole])
    head = ["benchmark", "downstream model", "policy", "setting", "statements", "precision %", "recall %"]
    head += ["choices: agree %", "choices: κ", "statements: agree %", "statements: κ"]
    title = "What is known of the items: precision and recall of statements, and the downstream model's verdicts"
    return Table("evidence", title, head, body, KNOWN_NOTE)


def _names(cell: Cell) -> list[str]:
    benchmark, *others = cell
    return [label(benchmark), *others]


def _bearing(links: Links, place: int) -> int:
    return (place in links.supports) - (place in links.contradicts)


def _share(told: Iterable[tuple[str, Links]], verdict: str) -> Estimate:
    return _mean([(user, links.verdict == verdict) for user, links in told])


def _mean(found: Sequence[tuple[str, bool]]) -> Estimate:
    return estimate([float(value) for _, value in found], [person_of(user) for user, _ in found])


def _agreement(judged: Sequence[Hashable], known: Sequence[Hashable], users: Sequence[str]) -> list[str]:
    if not judged:
        return [MISSING, MISSING]
    found: Agreement = agreement(judged, known, [person_of(user) for user in users])
    if found.kappa != found.kappa:
        return [f"{100 * found.share:.2f}", MISSING]
    return [f"{100 * found.share:.2f}", f"{found.kappa:.2f} [{found.low:.2f}, {found.high:.2f}]"]
