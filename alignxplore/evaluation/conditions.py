"""The cells of the tables: which summaries, histories or cues a row of results is made of.

A cell is one (policy, setting, benchmark, seed). For each record it holds what a judge is to be asked; the score of a
record whose summary is bad format is fixed by protocol choice and needs no judge; in protocol paper what was written
in its place is judged as it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from alignxplore.baselines import content
from alignxplore.baselines.cues import BASELINES, candidate_scores
from alignxplore.datasets.sidecars import read_popularity
from alignxplore.evaluation.benchmarks import Benchmark, SummarySet, shown_history
from alignxplore.evaluation.fits import fit_of
from alignxplore.journal import FAILED
from alignxplore.judging.judgement import chosen_first
from alignxplore.judging.ranking import ROTATIONS, first_shares
from alignxplore.prompts import after_reasoning
from alignxplore.records import Interaction, Offer, UserRecord, content_hash

FIRST = "first item"
TALLY = "content tally"
CHANCE = "chance"
NO_SUMMARY = "no summary"
OTHER_USERS = "other user's"  # begins a policy's row where others read its summaries
RANDOM = "random"
# Without a model; the tally alone reads.
CUES = (*(name for name in BASELINES if name != RANDOM), FIRST, RANDOM, TALLY, CHANCE)
OTHERS = 3  # other users' summaries shown for each record: their mean has a third of the variance


@dataclass(frozen=True)
class ReadSummaries:
    """A judge reads summaries; of several the score is the mean. None is no summary.

    `dropped` counts the oldest interactions that the policy could not be shown. `shown_otherwise` says whether the
    other one of `fits.FITS` would have shown it anything else. None: nobody wrote anything.
    """

    record: UserRecord
    summaries: tuple[str | None, ...]
    dropped: int | None = None
    shown_otherwise: bool | None = None


@dataclass(frozen=True)
class ReadHistory:
    """The direct setting: a judge reads the raw history."""

    record: UserRecord
    history: tuple[Interaction, ...]


@dataclass(frozen=True)
class BadFormat:
    """The policy gave no summary, and `problem` says why; `as_it_is` is what such an answer holds after its reasoning
    (None: nothing was written), `skipped` says that the published way leaves the row out."""

    record: UserRecord
    problem: str
    as_it_is: str | None = None
    skipped: bool = False
    dropped: int | None = None
    shown_otherwise: bool | None = None


@dataclass(frozen=True)
class MissingSummary:
    """The summary could not be had (no reply, or a refusal), which lowers coverage."""

    record: UserRecord
    dropped: int | None = None


@dataclass(frozen=True)
class Foreseen:
    """Nobody is asked: a cue foresees the choice between two items with this score (None: it says nothing)."""

    record: UserRecord
    value: float | None


@dataclass(frozen=True)
class Weighed:
    """Nobody is asked: a cue gives each of k items a score (None: it says nothing)."""

    record: UserRecord
    scores: tuple[float, ...] | None


Question = ReadSummaries | ReadHistory | BadFormat | MissingSummary | Foreseen | Weighed


@dataclass(frozen=True)
class Cell:
    """One row of results before it is judged. `meta`: what made its summaries (`SummarySet.meta`)."""

    policy: str
    setting: str
    benchmark: Benchmark
    seed: int
    questions: tuple[Question, ...]
    meta: dict | None = None


def of_summaries(summaries: SummarySet, benchmark: Benchmark) -> Cell:
    """The summaries that a policy wrote; `meta` also says which fields some of them were asked for without
    (`Endpoint.not_sent`)."""
    rows, meta = summaries.by_record(), summaries.meta()
    unsent_fields = sorted({name for row in rows.values() for name in row.get("not_sent", ())})
    if meta and unsent_fields:
        meta |= {"not_sent": unsent_fields}
    return Cell(
        summaries.policy,
        summaries.setting,
        benchmark,
        summaries.seed,
        tuple(_question_of(record, rows.get(record.id), fit_of(meta)) for record in benchmark.records),
        meta=meta,
    )


def _question_of(record: UserRecord, row: dict | None, fit: str) -> Question:
    if row is None or row["status"] in FAILED:
        return MissingSummary(record)
    if not row["stages"]:  # the prompt could not be made to fit, a final outcome
        return BadFormat(record, row["error"], skipped=fit == "published")
    last, dropped = row["stages"][-1], sum(stage["dropped"] for stage in row["stages"])
    if last["problem"]:
        as_it_is = after_reasoning(last["text"])
        return BadFormat(
            record, last["problem"], as_it_is, dropped=dropped, shown_otherwise=row.get("shown_otherwise")
        )
    return ReadSummaries(record, (last["summary"],), dropped, row.get("shown_otherwise"))


def of_other_users(cell: Cell) -> Cell:
    """The same policy's summaries, each record read with those of `OTHERS` other people, drawn by content hash.

    Rows of one person (`user#1`, `user#2`) are never given to each other.
    """
    sources = [q for q in cell.questions if isinstance(q, ReadSummaries)]
    sources.sort(key=lambda q: content_hash(["other user", cell.seed, q.record.user, q.summaries[0]]))
    place = {q.record.user: i for i, q in enumerate(sources)}
    questions: list[Question] = []
    for question in cell.questions:
        start = place.get(question.record.user)
        ring = [] if start is None else chain(islice(sources, start + 1, None), islice(sources, start))
        others = tuple(islice((q for q in ring if q.record.person != question.record.person), OTHERS))
        if len(others) == OTHERS:
            dropped = sum(q.dropped or 0 for q in others)
            questions.append(ReadSummaries(question.record, tuple(q.summaries[0] for q in others), dropped))
        elif isinstance(question, BadFormat):
            questions.append(BadFormat(question.record, question.problem, dropped=question.dropped))
        else:
            count = question.dropped if isinstance(question, ReadSummaries) else None
            questions.append(MissingSummary(question.record, count))
    return Cell(
        f"{OTHER_USERS} ({cell.policy})",
        cell.setting,
        cell.benchmark,
        cell.seed,
        tuple(questions),
        meta=cell.meta,
    )


def of_no_summary(benchmark: Benchmark) -> Cell:
    """The judge is told that nothing is known of the user."""
    return Cell(
        NO_SUMMARY, "none", benchmark, 0, tuple(ReadSummaries(record, (None,)) for record in benchmark.records)
    )


def of_histories(judge: str, benchmark: Benchmark) -> Cell:
    """The direct setting: the judge reads the raw history."""
    questions = tuple(ReadHistory(record, shown_history(benchmark, record)) for record in benchmark.records)
    return Cell(judge, "direct", benchmark, 0, questions)


def of_cues(
    benchmark: Benchmark,
    names: Sequence[str],
    protocol: str = "choice",
    orders: str = "both",
    seed: int = 0,
    rotations: int = ROTATIONS,
) -> list[Cell]:
    """Baselines without a model; one that says nothing of any record is left out. The content tally reads what a
    policy is shown of a history, the others neither history nor summary; chance is a bound, exactly one half.

    The item shown first depends on the orders that a judge is asked in (`protocol`, `orders`, `seed`, `rotations` as
    for the judge).
    """
    if benchmark.among_k:
        return _of_ranked_cues(benchmark, names, seed, rotations)
    counts = read_popularity(benchmark.path)
    cells = []
    for name in names:
        scores: tuple[float | None, ...]
        if name == CHANCE:
            scores = (0.5,) * len(benchmark.records)
        elif name == TALLY:
            scores = tuple(content.foresee(shown_history(benchmark, r), r.target) for r in benchmark.records)
        elif name == FIRST:
            scores = tuple(_first_item(record, protocol, orders, seed) for record in benchmark.records)
        else:
            scores = tuple(BASELINES[name](record, counts.get(record.user), 0) for record in benchmark.records)
        if any(score is not None for score in scores):
            cells.append(foreseen(name, setting_of(name), benchmark, scores))
    return cells


def _of_ranked_cues(benchmark: Benchmark, names: Sequence[str], seed: int, rotations: int) -> list[Cell]:
    """The same of choices among k items, each candidate with a score."""
    counts, cells = read_popularity(benchmark.path), []
    for name in names:
        rankings: list[tuple[float, ...] | None] = []
        for record in benchmark.records:
            offer = record.target
            assert isinstance(offer, Offer)
            if name == CHANCE:
                rankings.append((0.0,) * len(offer.candidates))
            elif name == FIRST:
                rankings.append(first_shares(offer, record.id, seed, rotations))
            elif name == TALLY:
                rankings.append(content.scores(shown_history(benchmark, record), offer.candidates))
            else:
                rankings.append(candidate_scores(name, record, offer, counts.get(record.user)))
        if any(scores is not None for scores in rankings):
            cells.append(weighed(name, setting_of(name), benchmark, rankings))
    return cells


def foreseen(name: str, setting: str, benchmark: Benchmark, scores: Iterable[float | None]) -> Cell:
    """The cell of a baseline that chooses between two items."""
    return Cell(name, setting, benchmark, 0, tuple(map(Foreseen, benchmark.records, scores)))


def weighed(name: str, setting: str, benchmark: Benchmark, scores: Iterable[tuple[float, ...] | None]) -> Cell:
    """The cell of a baseline that chooses among k items."""
    return Cell(name, setting, benchmark, 0, tuple(map(Weighed, benchmark.records, scores)))


def setting_of(cue: str) -> str:
    """Where the row of a cue stands: the tally reads the history, chance is a bound, the others read nothing."""
    return {TALLY: "direct", CHANCE: "bound"}.get(cue, "none")


def _first_item(record: UserRecord, protocol: str, orders: str, seed: int) -> float:
    if protocol == "choice" and orders == "both":
        return 0.5
    return float(chosen_first("paper order" if protocol == "paper" else "judge order", record.id, seed))


@dataclass(frozen=True)
class JudgeRequest:
    """One judgement to be made: of a record, after one of its summaries (None: no summary) or, in its place, a raw
    history. `owner` names the policy and setting that it is made for first; the same text of another one is the same
    judgement."""

    record: UserRecord
    summary: str | None = None
    history: tuple[Interaction, ...] | None = None
    owner: str = field(default="", compare=False)


def requests_of(question: Question, protocol: str) -> list[JudgeRequest]:
    """The judgements that one question needs: one for each of its summaries, or one of its history; in protocol paper
    also one of what an answer in bad format holds."""
    match question:
        case ReadHistory(record, history):
            return [JudgeRequest(record, history=history)]
        case ReadSummaries(record, summaries):
            return [JudgeRequest(record, summary) for summary in summaries]
        case BadFormat(record, _, as_it_is) if protocol == "paper" and as_it_is is not None:
            return [JudgeRequest(record, as_it_is)]
    return []


def questions(cell_list: list[Cell], protocol: str) -> Iterator[JudgeRequest]:
    """All judgements that the cells need in one protocol."""
    for cell in cell_list:
        for question in cell.questions:
            for request in requests_of(question, protocol):
                yield replace(request, owner=f"{cell.policy}, {cell.setting}")
