"""One person: a history is read, a summary is written while you watch, and a downstream model chooses by it.

    python -m alignxplore.ask                                            after ./quickstart.sh: one of its test persons
    python -m alignxplore.ask --person 331#7 --stages 2                  another one, as a stream of two slices
    python -m alignxplore.ask --history - --items "FILM A" "FILM B"      type choices in, end with Ctrl-D
    python -m alignxplore.ask --history mine.csv --chosen title --rejected instead --items "FILM A" "FILM B"
    python -m alignxplore.ask --model Qwen/Qwen3-8B --judge http://host:8000/v1 --history mine.jsonl --items A B

A line typed in is one choice, oldest first: `what was chosen > what was passed over`, or the first part alone. A
folder or hub id is served here by `vllm serve` and ends with the command; an endpoint is used as it is. The judge is
asked with the summary and without it, about the items in both orders (of more than two items: in two rotations).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from alignxplore.ask.finished import RUN, Finished, reads_genres
from alignxplore.ask.histories import HOW, Columns, Person, of_benchmark, read_history, typed
from alignxplore.ask.models import Chooser, ModelOptions, Policy, Verdict, opened, places
from alignxplore.ask.telling import Teller, aligned, choices, short, told_history, verdict_lines
from alignxplore.command import option, planned, run
from alignxplore.errors import UserError, at_least_one, not_empty
from alignxplore.evaluation.benchmarks import load_benchmark
from alignxplore.films.titles import REQUEST, complete, unknown
from alignxplore.journal import OK
from alignxplore.serving.models import ModelSpec, parse_all
from alignxplore.texts import words_of

MOST = len(ascii_uppercase)


@dataclass(kw_only=True)
class AskOptions(ModelOptions):
    """Whose history, which models."""

    model: str | None = option(
        "policy: folder, hub id[@revision] or endpoint URL; default: the last one of --run", None
    )
    judge: list[str] = option(
        "downstream models that choose among items; default: the first of --run, where --model lies there, too", []
    )
    history: str | None = option(
        "file of the history (JSONL, CSV or Parquet), or - to type it in; default: a person of --data", None
    )
    chosen: str = option("column of a CSV or Parquet with what was chosen", "chosen")
    rejected: str = option(
        "column with what was passed over; it may be empty, or missing where it is not named here", "rejected"
    )
    query: str = option("column with what was asked; the same", "query")
    person: str | None = option("user id in --data, or in a JSONL of persons; default: the first", None)
    data: str | None = option("benchmark file of the person; default: that of --run", None)
    items: list[str] = option("two or more items to choose from; default: what the person really chose from", [])
    question: str | None = option("what is asked about the items; default: that of the person's target", None)
    stages: int = option("slices that the history is read in, each with the summary of those before", 1)
    run: Path = option("folder of a finished quick start, for what is not given", RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "stages")
        not_empty(self, "chosen", "rejected", "query")
        if self.history and self.data:
            raise ValueError("--history and --data: give one of them")
        if len(self.items) == 1 or len(self.items) > MOST:
            raise ValueError(f"--items: give two to {MOST} items, each in quotes; found {len(self.items)}")
        if not all(item.strip() for item in self.items):
            raise ValueError("--items: one of them is empty; each is a text, in quotes")
        if len(set(map(words_of, self.items))) < len(self.items):
            raise ValueError("--items: two of them are the same; nobody can choose between them")


@dataclass(frozen=True)
class Question:
    """All that is asked: the models, the person, and the items (none: only the summary is wanted)."""

    model: ModelSpec
    judges: Sequence[ModelSpec]
    person: Person
    items: tuple[str, ...]
    query: str | None


def question_of(options: AskOptions) -> Question:
    """What the options ask; what they leave out is that of the finished run."""
    needs_run = options.model is None or not (options.history or options.data) or not options.judge
    finished_run = None
    try:
        finished_run = Finished.read(options.run) if needs_run else None
    except UserError:
        if options.model is None or not (options.history or options.data):
            raise
    person = _person(options, finished_run)
    items = tuple(options.items) or (person.target.candidates if person.target else ())
    model = ModelSpec.parse(options.model or (finished_run.policies[-1] if finished_run else ""))
    default_judges = finished_run.judges[:1] if finished_run and finished_run.holds(model) else ()
    judges = parse_all(options.judge or default_judges)
    if options.items and not judges:
        raise UserError("--items without a --judge: name the downstream model that is to choose")
    judges = judges if items else []
    default_query = None
    if any(map(reads_genres, (model, *judges))):
        person, items, default_query = *_with_genres(person, items), REQUEST
        if options.history or options.data:
            _name_unknown(person, items)
    query = options.question or (person.target.query if person.target else None) or default_query
    return Question(model, judges, person, items, query)


def _with_genres(person: Person, items: tuple[str, ...]) -> tuple[Person, tuple[str, ...]]:
    """Titles with the genres that the quick start's models read."""
    items = tuple(map(complete, items))
    if len(set(items)) < len(items):
        raise UserError(f"two items are the same: {max(items, key=items.count)}; nobody can choose between them")
    return person.completed(complete, REQUEST), items


def _name_unknown(person: Person, items: tuple[str, ...]) -> None:
    """Say what is no film that the quick start's models read."""
    texts = [text for interaction in person.history for text in (interaction.chosen, interaction.rejected) if text]
    if other_texts := unknown([*texts, *items]):
        print(
            f"{len(other_texts)} of {len(texts) + len(items)} items are no films that the quick start's models can "
            f"read, such as: {short(other_texts[0], 60)}. Write them as Title: NAME (YEAR), Genres: Comedy|Drama"
        )


def _person(options: AskOptions, finished_run: Finished | None) -> Person:
    columns = Columns(options.chosen, options.rejected, options.query)
    if options.history == "-":
        if sys.stdin.isatty():
            print(f"Type {HOW}. End with Ctrl-D.", flush=True)
        return typed(sys.stdin.read(), columns, options.person)
    if options.history:
        return read_history(Path(options.history), columns, options.person)
    benchmark = load_benchmark(options.data or str(finished_run.benchmark if finished_run else ""))
    for record in benchmark.records:
        if options.person in (None, record.user):
            return of_benchmark(benchmark, record)
    own_rows = [record for record in benchmark.records if record.person == options.person]  # a row is to be named
    examples = ", ".join(record.user for record in (own_rows or benchmark.records)[:5])
    raise UserError(f"{benchmark.path}: no person '{options.person}'; there are {examples}, ...")


async def ask(options: AskOptions) -> str | None:
    """Everything the script does."""
    question = question_of(options)
    person, judges = question.person, question.judges
    print(f"{person.name}: {choices(len(person.history))}, oldest first")
    print(told_history(person.history), flush=True)
    if options.check:
        specs = (question.model, *judges)
        return planned(options, *places(specs, options), f"items: {len(question.items)}")
    print(f"\nStarting {', '.join(spec.name for spec in (question.model, *judges))} ...", flush=True)
    async with opened([question.model], judges, options) as ((policy,), choosers):
        summary = await tell_summary(policy, person, options.stages)
        if choosers:
            await tell_choice(choosers, summary, question)
    return None


async def tell_summary(policy: Policy, person: Person, stages: int) -> str | None:
    """Print the reasoning and the summary as they are written; returns the summary, None in bad format.

    Raises:
        UserError: nothing could be written.
    """
    teller = Teller(policy.name, person.slices(stages))
    summaries = await policy.write(person, stages, teller.hear)
    if summaries.status != OK:
        raise UserError(f"{policy.name} wrote nothing ({summaries.status}): {summaries.error}")
    teller.end(summaries)
    return summaries.summary or None


async def tell_choice(choosers: Sequence[Chooser], summary: str | None, question: Question) -> None:
    """Print what each downstream model chooses with the summary and without, and how sure it is in each order."""
    print(f"\n{question.query or 'Which of these will the person choose?'}")
    for letter, item in zip(ascii_uppercase, question.items):
        print(aligned(letter, item, chosen=bool(question.person.target) and item in _taken(question)))
    rows: list[tuple[str, Verdict]] = []
    for chooser in choosers:
        await chooser.check(question.items, question.query)
        rows.append(("no summary", await chooser.choose(None, question.items, question.query)))
        if summary:
            rows.append(("this summary", await chooser.choose(summary, question.items, question.query)))
    print(verdict_lines(rows, question.items))
    if summary is None:
        print("The summary is in bad format, so no downstream model was shown it.")


def _taken(question: Question) -> tuple[str, ...]:
    return question.person.target.taken if question.person.target else ()


if __name__ == "__main__":
    run(ask, AskOptions, __doc__)
