"""`--baselines`: baselines that read what a policy is shown, as cells beside those of the policies. Used by
scoring.py; how they score is in alignxplore/baselines/.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from alignxplore.baselines.embeddings import Embeddings, Encoder
from alignxplore.baselines.histories import (
    Als,
    Bm25,
    Bpr,
    ItemKnn,
    Likeness,
    foresee,
    of_others,
    scores,
    texts_of,
    training_choices,
)
from alignxplore.errors import once
from alignxplore.evaluation.benchmarks import Benchmark, shown_history
from alignxplore.evaluation.conditions import Cell, foreseen, weighed
from alignxplore.serving.models import ModelSpec

log = logging.getLogger(__name__)
ROWS = ("BM25", "item-kNN", "ALS", "BPR")  # of the tables, besides those of encoders
EMBEDDINGS = "embeddings ("
BM25, KNN, ALS, BPR, EMBEDDING = "bm25", "item-knn", "als", "bpr", "embedding"
Learner = ItemKnn | Als | Bpr
LEARNERS: dict[str, tuple[str, type[Learner]]] = {KNN: (ROWS[1], ItemKnn), ALS: (ROWS[2], Als), BPR: (ROWS[3], Bpr)}
SAME_IDS, OTHER_IDS = "same", "others"
HELP = (
    f"baselines that read the history, without a judge: {BM25} (words of the items), {KNN}=FILE (who else chose them: "
    f"a benchmark file of training persons); {ALS}=FILE and {BPR}=FILE (the same by factors of persons and items), "
    f"{EMBEDDING}=MODEL (any encoder, a folder or hub id[@revision]); none: no such baseline"
)
IDS_HELP = (
    f"who has an id of the benchmark in files of --baselines: {SAME_IDS} (that person, who is left out), "
    f"{OTHER_IDS} (somebody else, as in another edition)"
)


class HistoryBaseline(NamedTuple):
    """One value of `--baselines`: its kind, and the file or model that it needs."""

    kind: str
    source: str = ""

    @classmethod
    def parse(cls, text: str) -> "HistoryBaseline":
        """KIND or KIND=SOURCE.

        Raises:
            ValueError: another kind, or a source that is missing or not wanted.
        """
        kind, equals, source = text.partition("=")
        if kind not in (BM25, KNN, ALS, BPR, EMBEDDING):
            raise ValueError(
                f"--baselines: unknown {text}; choose from {BM25}, {KNN}=FILE, {ALS}=FILE, {BPR}=FILE, "
                f"{EMBEDDING}=MODEL, none"
            )
        if bool(source) != (kind != BM25) or equals and not source:
            persons = "needs a file of training persons"
            needs = {BM25: "takes nothing", KNN: persons, ALS: persons, BPR: persons, EMBEDDING: "needs a model"}
            raise ValueError(f"--baselines {text}: {kind} {needs[kind]}; e.g. {BM25} {KNN}=FILE {EMBEDDING}=MODEL")
        return cls(kind, source)


def parse_baselines(texts: Iterable[str]) -> list[HistoryBaseline]:
    """All values of `--baselines`; "none" alone is no baseline."""
    texts = list(texts)
    baselines = [] if texts == ["none"] else [HistoryBaseline.parse(text) for text in texts]
    once("baselines", (baseline.kind for baseline in baselines))
    return baselines


def check_sources(baselines: Iterable[HistoryBaseline]) -> None:
    """Raise a FileNotFoundError for a file of training persons that is not there."""
    for kind, source in baselines:
        if kind in (KNN, ALS, BPR) and not Path(source).is_file():
            raise FileNotFoundError(f"--baselines {kind}={source}: no such file")


class HistoryBaselines:
    """The baselines of a run; a file or model is read once, for all benchmarks.

    Args:
        benchmarks: all of the run. Nothing is learnt from the persons of the one that is scored, or of its copies.
            User ids are those of a data set, so that persons of other benchmarks are left out by no id. None where
            the files are of other editions, whose ids are other persons.
    """

    def __init__(self, baselines: Sequence[HistoryBaseline], benchmarks: Iterable[Benchmark]):
        self._source_of = {baseline.kind: baseline.source for baseline in baselines}
        self._persons: dict[str, set[str]] = defaultdict(set)
        for benchmark in benchmarks:
            self._persons[_original(benchmark)].update(record.person for record in benchmark.records)
        self._choices: dict[str, dict[str, set[str]]] = {}
        self._learners: dict[tuple[str, str], Learner] = {}
        self._encoders: dict[str, Encoder] = {}

    def _learner(self, kind: str, benchmark: Benchmark, targets: Iterable[str]) -> Learner | None:
        """What learnt from all but the persons of a benchmark; None where nobody in its file chose a target."""
        source = self._source_of[kind]
        if source not in self._choices:
            self._choices[source] = training_choices([source])
        choices, persons = self._choices[source], self._persons[_original(benchmark)]
        if set(targets).isdisjoint(text for texts in choices.values() for text in texts):
            return None
        key = kind, _original(benchmark)
        if key not in self._learners:
            others = of_others(choices, persons, source)
            log.info(
                "%s for %s: %d training persons; %d left out, who are persons of the benchmark",
                *(LEARNERS[kind][0], _original(benchmark), len(others), len(choices) - len(others)),
            )
            self._learners[key] = LEARNERS[kind][1](others)
        return self._learners[key]

    def cells(self, benchmark: Benchmark) -> Iterator[Cell]:
        """One cell a baseline, as of a reader of raw histories; item-knn only where it knows an item."""
        histories = [shown_history(benchmark, record) for record in benchmark.records]
        targets = [text for record in benchmark.records for text in record.target.candidates]
        texts = dict.fromkeys(text for history in histories for text in texts_of(history))
        if BM25 in self._source_of:
            yield self._cell(ROWS[0], Bm25(texts), benchmark, histories)
        for kind, (name, _) in LEARNERS.items():
            learner = self._learner(kind, benchmark, targets) if kind in self._source_of else None
            if learner and any(map(learner.knows, targets)):
                yield self._cell(name, learner, benchmark, histories)
        if source := self._source_of.get(EMBEDDING):
            spec = ModelSpec.parse(source)
            if source not in self._encoders:
                self._encoders[source] = Encoder(spec.target, spec.revision)
            like = Embeddings(self._encoders[source], [*texts, *targets])
            yield self._cell(f"{EMBEDDINGS}{spec.name})", like, benchmark, histories)

    def _cell(self, name: str, like: Likeness, benchmark: Benchmark, histories: Sequence[tuple]) -> Cell:
        rows = list(zip(histories, benchmark.records))
        if benchmark.among_k:
            rankings = (scores(like, history, r.target.candidates) for history, r in rows)
            return weighed(name, "direct", benchmark, rankings)
        return foreseen(name, "direct", benchmark, (foresee(like, history, r.target) for history, r in rows))


def _original(benchmark: Benchmark) -> str:
    """The name of the benchmark that a disturbed copy (NAME~KIND) is of; its own name of any other."""
    return benchmark.name.partition("~")[0]
