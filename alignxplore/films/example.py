"""One real person, for a first look: twelve films, what the policies wrote about them, what the judges make of it.

    python -m alignxplore.films.example --data data/movielens_upi.jsonl --eval eval --out example.md

After `eval/evaluate.py` with two policies or more. Nobody picks the person: it is the one in the middle of all test
rows. They are ordered by how sure the judges are of the film that was really taken, with the summary of the last
policy.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alignxplore.command import option, run
from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import Benchmark, find_sets, load_benchmark
from alignxplore.evaluation.fits import fit_of, read_interactions
from alignxplore.evaluation.report.tables import MISSING, percent
from alignxplore.evaluation.rows import read_scores
from alignxplore.records import Interaction, UserRecord, refuse_same_files, write_text

SETTING, NOBODY = "full", "no summary"
FILM = re.compile(r"^Title: (.*?) *\((\d{4})\) *, Genres: (.*)$", re.DOTALL)

Sure = dict[tuple[str, str], dict[str, float]]  # (policy, judge) → record id → P(chosen)


class Told(NamedTuple):
    """The last stage of a summary, and the interactions that its policy was shown."""

    stage: dict
    interactions: tuple[Interaction, ...]


@dataclass(kw_only=True)
class ExampleOptions:
    """From which evaluation."""

    data: str = option("benchmark file of films that was evaluated")
    eval: Path = option("folder of the summaries and scores (--out of eval/evaluate.py)")
    policies: list[str] = option("policies in the order of their training", ["untrained", "sft", "sft+rl"])
    out: Path = option("Markdown file")

    def __post_init__(self) -> None:
        if len(self.policies) < 2:
            raise ValueError(
                "--policies: name two at least; the person is found by the last one, compared with those before"
            )


def film(text: str) -> str:
    """A film as it is told to people."""
    match = FILM.match(text)
    return f"{match[1]} ({match[2]}): {match[3].replace('|', ', ')}" if match else text


def read_sure(folder: Path, policies: Sequence[str], benchmark: str) -> Sure:
    """How sure each judge is, without a summary and with each policy's; 0.5 where one in bad format tells nothing.

    Raises:
        UserError: a policy that no judge was asked about.
    """
    confidences: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in read_scores(folder):
        setting = "none" if score.policy == NOBODY else SETTING
        cell = score.benchmark, score.protocol, score.setting
        if score.policy in (NOBODY, *policies) and cell == (benchmark, "choice", setting) and score.value is not None:
            confidences[score.policy, score.judge][score.record].append(0.5 if score.p is None else score.p)
    if missing := [name for name in (NOBODY, *policies) if name not in {policy for policy, _ in confidences}]:
        raise UserError(
            f"{folder}/scores.jsonl has no {SETTING} scores of {', '.join(missing)}; run eval/evaluate.py with "
            "--protocol choice, or name other --policies"
        )
    return {key: {record: sum(ps) / len(ps) for record, ps in rows.items()} for key, rows in confidences.items()}


def sureness(sure: Sure, policy: str) -> dict[str, float]:
    """Record id → how sure the judges are on average with a policy's summary, of the records that all were asked
    about."""
    judges = [judge for name, judge in sure if name == policy]
    records = set.intersection(*(set(sure[policy, judge]) for judge in judges))
    return {record: sum(sure[policy, judge][record] for judge in judges) / len(judges) for record in records}


def middle(values: dict[str, float]) -> str:
    """The record with the median value; the lower one of two, the smaller id of several alike."""
    return sorted(values, key=lambda record: (values[record], record))[(len(values) - 1) // 2]


def films_table(interactions: Sequence[Interaction]) -> list[str]:
    """The choices, oldest first."""
    lines = ["| | chosen | passed over |", "| ---: | --- | --- |"]
    return lines + [
        f"| {place} | {film(one.chosen)} | {film(one.rejected) if one.rejected else MISSING} |"
        for place, one in enumerate(interactions, 1)
    ]


def rows_of(options: ExampleOptions, benchmark: Benchmark, record: UserRecord) -> dict[str, Told]:
    """What each policy wrote of one record, in their order."""
    rows: dict[str, Told] = {}
    for summaries in find_sets(options.eval, options.policies):
        row = summaries.by_record(fields=("dropped",)).get(record.id)
        if summaries.benchmark == benchmark.name and summaries.setting == SETTING and row and row["stages"]:
            interactions = read_interactions(fit_of(summaries.meta()), benchmark.task, record.history, row)
            rows.setdefault(summaries.policy, Told(row["stages"][-1], interactions))
    return rows


def confidence_table(sure: Sure, policies: Sequence[str], record: str) -> list[str]:
    """P(the film that was taken) in %: one line a text, one column a judge."""
    judges = [judge for policy, judge in sure if policy == NOBODY]
    lines = [f"| P(taken film), % | {' | '.join(judges)} |", f"| --- |{' ---: |' * len(judges)}"]
    for policy in (NOBODY, *policies):
        cells = [sure.get((policy, judge), {}).get(record) for judge in judges]
        texts = [MISSING if p is None else f"{100 * p:.1f}" for p in cells]
        lines.append(f"| {policy if policy == NOBODY else f'summary of {policy}'} | {' | '.join(texts)} |")
    return lines


def page(record: UserRecord, benchmark: Benchmark, rows: dict[str, Told], table: list[str], rule: str) -> str:
    """The whole of it."""
    summaries = [
        f"- **{policy}**: "
        + (
            f"none, in bad format ({row.stage['problem']})"
            if row.stage["problem"]
            else " ".join(row.stage["summary"].split())
        )
        for policy, row in rows.items()
    ]
    lines = [f"# One person: {record.user} of {benchmark.name}", "", rule, ""]
    readers: dict[tuple[Interaction, ...], list[str]] = defaultdict(list)
    for policy, row in rows.items():
        readers[row.interactions].append(policy)
    for interactions, policies in readers.items():
        who = "the policies" if len(readers) == 1 else " and ".join(policies)
        lines += [f"The {len(interactions)} choices that {who} read:", "", *films_table(interactions), ""]
    lines += ["What they wrote (full history):", "", *summaries, ""]
    taken, other = map(film, record.target.items)
    lines += ["Later this person chose between two films:", "", f"- taken: {taken}", f"- not taken: {other}", ""]
    lines += ["How sure each judge is of the film that was taken; it reads the summary and no history:", "", *table]
    return "\n".join([*lines, ""])


def write_example(options: ExampleOptions) -> str:
    """Write the page, and return it."""
    benchmark = load_benchmark(options.data)
    refuse_same_files({"--out": options.out}, {"--data": benchmark.path})
    last = options.policies[-1]
    sure = read_sure(options.eval, options.policies, benchmark.name)
    confidences = sureness(sure, last)
    chosen = middle(confidences)
    rule = (
        f"Found by a rule, not picked: of {len(confidences)} test rows the one of whose taken film the judges are as "
        f"sure as in the median: {percent(confidences[chosen])} % with the summary of {last}, full history, mean of "
        "the judges."
    )
    record = next(record for record in benchmark.records if record.id == chosen)
    rows = rows_of(options, benchmark, record)
    written = [policy for policy, row in rows.items() if not row.stage["problem"]]
    text = page(record, benchmark, rows, confidence_table(sure, written, chosen), rule)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, text)
    return text


if __name__ == "__main__":
    run(write_example, ExampleOptions, __doc__)
