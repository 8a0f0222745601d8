"""`--baselines`: baselines that read what a policy is shown, as cells beside those of the policies. Used by
scoring.py; how they score is in alignxplore/baselines/.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
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
    scores,
    texts_of,
    training_choices,
)
from alignxplore.errors import once
from alignxplore.evaluation.benchmarks import Benchmark, shown_history
from alignxplore.evaluation.conditions import Cell, foreseen, weighed
from alignxplore.serving.models import ModelSpec

ROWS = ("BM25", "item-kNN", "ALS", "BPR")  # of the tables, besides those of encoders
EMBEDDINGS = "embeddings ("
BM25, KNN, ALS, BPR, EMBEDDING = "bm25", "item-knn", "als", "bpr", "embedding"
HELP = (
    f"baselines that read the history, without a judge: {BM25} (words of the items), {KNN}=FILE (who else chose them: "
    f"benchmark files of training persons; several files: several times), {ALS}=FILE and {BPR}=FILE (the same by "
    f"factors of persons and items), {EMBEDDING}=MODEL (any encoder, a folder or "
    "hub id[@revision]); none: no such baseline"
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
        persons: of all benchmarks; item-knn learns nothing from them.
    """

    def __init__(self, baselines: Sequence[HistoryBaseline], persons: set[str]):
        self._baselines, self._persons = baselines, persons
        self._encoders: dict[str, Encoder] = {}

    def _choices(self, kind: str) -> dict[str, set[str]]:
        files = [Path(baseline.source) for baseline in self._baselines if baseline.kind == kind]
        return training_choices(files, without=self._persons)

    @cached_property
    def _knn(self) -> ItemKnn:
        return ItemKnn(self._choices(KNN))

    @cached_property
    def _als(self) -> Als:
        return Als(self._choices(ALS))

    @cached_property
    def _bpr(self) -> Bpr:
        return Bpr(self._choices(BPR))

    def cells(self, benchmark: Benchmark) -> Iterator[Cell]:
        """One cell a baseline, as of a reader of raw histories; item-knn only where it knows an item."""
        kinds = {baseline.kind for baseline in self._baselines}
        histories = [shown_history(benchmark, record) for record in benchmark.records]
        targets = [text for record in benchmark.records for text in record.target.candidates]
        texts = dict.fromkeys(text for history in histories for text in texts_of(history))
        if BM25 in kinds:
            yield self._cell(ROWS[0], Bm25(texts), benchmark, histories)
        if KNN in kinds and any(map(self._knn.knows, targets)):
            yield self._cell(ROWS[1], self._knn, benchmark, histories)
        if ALS in kinds and any(map(self._als.knows, targets)):
            yield self._cell(ROWS[2], self._als, benchmark, histories)
        if BPR in kinds and any(map(self._bpr.knows, targets)):
            yield self._cell(ROWS[3], self._bpr, benchmark, histories)
        for source in dict.fromkeys(baseline.source for baseline in self._baselines if baseline.kind == EMBEDDING):
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
