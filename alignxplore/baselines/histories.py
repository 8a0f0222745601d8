"""Baselines that read the history: how like the items of a target are to what the user chose before, without a policy
and without a judge.

bm25          the words of the items (Robertson and Zaragoza 2009)
item-knn      who else chose them: items are alike when the same training persons chose them (Sarwar et al. 2001)
als           who else chose them: factors of persons and items (Hu, Koren and Volinsky 2008)
embedding     their texts as a model of the hub embeds them

Each scores both items of a target against the interactions that a policy is shown; the greater score is foreseen.
item-knn is a few lines of SciPy: neighbours are looked for within a history, which no library's recommender does.
Suffixes of arrays: `P` training persons, `I` items, `F` factors, `H` items of a history.
"""

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.sparse import csr_matrix

from alignxplore.benchmark_files import read_users
from alignxplore.records import Interaction, RecordError

FACTORS = 32  # of a person or an item (als)
NEIGHBOURS = 20  # of an item among those of a history (item-knn)
K1, B = 1.5, 0.75  # of BM25, the usual values
_WORD = re.compile(r"\w+")


class Likeness(Protocol):
    """Says of one item how like it is to a history; None where it knows nothing of the item."""

    def __call__(self, item: str, history: Sequence[Interaction]) -> float | None: ...


def foresee(like: Likeness, history: Sequence[Interaction], target: Interaction) -> float:
    """1 where the chosen item is the more alike, 0.5 where both are alike or unknown, else 0."""
    chosen, rejected = scores(like, history, target.items)
    return 0.5 if abs(chosen - rejected) < 1e-9 else float(chosen > rejected)


def scores(like: Likeness, history: Sequence[Interaction], items: Iterable[str]) -> tuple[float, ...]:
    """How like each of several items is to a history.

    One of which nothing is known counts as not alike at all: 0, which is the least of most scales. Factors know no
    least, so beside items below 0 it stands below them.
    """
    likenesses = [like(item, history) for item in items]
    least = min((likeness for likeness in likenesses if likeness is not None), default=0.0)
    unknown = least - 1 if least < 0 else 0.0
    return tuple(unknown if likeness is None else likeness for likeness in likenesses)


def chosen_less_rejected(values: dict[str, float], history: Sequence[Interaction]) -> float:
    """Mean over the chosen items of a history less the mean over those passed over, where there are any."""
    sides = ([x.chosen for x in history], [x.rejected for x in history if x.rejected is not None])
    chosen, rejected = (float(np.mean([values[text] for text in side])) if side else 0.0 for side in sides)
    return chosen - rejected


def texts_of(history: Iterable[Interaction]) -> dict[str, None]:
    """The different item texts of a history, in order."""
    return dict.fromkeys(text for x in history for text in (x.chosen, x.rejected) if text is not None)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


class Bm25:
    """The words of an item as a query, the items of a history as the documents, by bm25s as Lucene counts.

    Args:
        texts: different texts of items, all that histories hold; they tell how rare a word is and how long a text.
    """

    def __init__(self, texts: Iterable[str]):
        from bm25s import BM25

        self._place = {text: place for place, text in enumerate(texts)}
        self._index = BM25(k1=K1, b=B, method="lucene", dtype="float64")
        self._index.index([_words(text) or [""] for text in self._place], show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """BM25 of every text for the words of another, each word once. [texts]"""
        words = [word for word in dict.fromkeys(_words(query)) if word in self._index.vocab_dict]
        return self._index.get_scores(words) if words else np.zeros(len(self._place))

    def __call__(self, item: str, history: Sequence[Interaction]) -> float:
        scores_I = self.scores(item)
        return chosen_less_rejected({text: float(scores_I[self._place[text]]) for text in texts_of(history)}, history)


class _ByChoices(ABC):
    """What learns from who chose what.

    Args:
        chosen: person → texts of all items that the person chose.
    """

    def __init__(self, chosen: dict[str, set[str]]):
        # In a fixed order, so that the draws that factors start from fall to the same items.
        texts_in_order = dict.fromkeys(text for texts in chosen.values() for text in sorted(texts))
        self._items = {text: place for place, text in enumerate(texts_in_order)}
        pairs = [(row, self._items[text]) for row, texts in enumerate(chosen.values()) for text in sorted(texts)]
        rows, columns = zip(*pairs) if pairs else ((), ())
        ones = np.ones(len(pairs), np.float32)
        self._learn(csr_matrix((ones, (rows, columns)), shape=(len(chosen), len(self._items))))

    @abstractmethod
    def _learn(self, choices_PI: csr_matrix) -> None:
        """From persons x items, 1 where chosen."""

    @abstractmethod
    def _score(self, item: int, others: list[int]) -> float:
        """How like an item is to others, all by place."""

    def knows(self, item: str) -> bool:
        """Whether any training person chose it."""
        return item in self._items

    def __call__(self, item: str, history: Sequence[Interaction]) -> float | None:
        others = [self._items[x.chosen] for x in history if x.chosen in self._items]
        return self._score(self._items[item], others) if item in self._items and others else None


class ItemKnn(_ByChoices):
    """Cosine of two items over the training persons who chose them; an item's score is the sum over its nearest
    `NEIGHBOURS` among the chosen items of a history."""

    def _learn(self, choices_PI: csr_matrix) -> None:
        self._choices_IP = choices_PI.astype(np.float64).T.tocsr()
        self._norms_I = np.sqrt(np.asarray(self._choices_IP.sum(1)).ravel())

    def _score(self, item: int, others: list[int]) -> float:
        shared_counts_H = np.asarray((self._choices_IP[others] @ self._choices_IP[item].T).todense()).ravel()
        cosines_H = shared_counts_H / (self._norms_I[others] * self._norms_I[item])
        return float(np.sort(cosines_H)[-NEIGHBOURS:].sum())


class Als(_ByChoices):
    """Factors of persons and items, learnt from who chose what (Hu, Koren and Volinsky 2008), by implicit; a history's
    own factors are those that fit its chosen items."""

    def _learn(self, choices_PI: csr_matrix) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        # One thread and a seed: the same factors every time.
        self._model = AlternatingLeastSquares(factors=FACTORS, random_state=0, num_threads=1)
        self._model.fit(choices_PI, show_progress=False)
        self._last: tuple[list[int], np.ndarray] = ([], np.zeros(FACTORS))

    def _score(self, item: int, others: list[int]) -> float:
        if self._last[0] != others:  # the other item of a target has the same history
            row = csr_matrix((np.ones(len(others), np.float32), ([0] * len(others), others)), (1, len(self._items)))
            self._last = others, self._model.recalculate_user(0, row)
        return float(self._model.item_factors[item] @ self._last[1])


class Bpr(_ByChoices):
    """Factors that rank what a person chose above what the person did not (Rendle et al. 2009), by implicit; a
    history's own factors are the mean of those of its chosen items: nobody new can be learnt without learning all."""

    def _learn(self, choices_PI: csr_matrix) -> None:
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        # One thread and a seed: the same draws, so the same factors every time.
        model = BayesianPersonalizedRanking(factors=FACTORS, random_state=0, num_threads=1)
        model.fit(choices_PI, show_progress=False)
        self._factors_IF, self._bias_I = model.item_factors[:, :-1], model.item_factors[:, -1]

    def _score(self, item: int, others: list[int]) -> float:
        return float(self._factors_IF[item] @ self._factors_IF[others].mean(0) + self._bias_I[item])


def training_choices(files: Iterable[str | Path]) -> dict[str, set[str]]:
    """Person → all that the person chose in benchmark files, histories and targets.

    Raises:
        RecordError: a file cannot be read.
    """
    choices: dict[str, set[str]] = defaultdict(set)
    for path in files:
        for record in read_users(path):
            choices[record.person] |= {*record.target.taken, *(x.chosen for x in record.history)}
    return choices


def of_others(choices: dict[str, set[str]], persons: Container[str], file: str | Path) -> dict[str, set[str]]:
    """The choices of a file without those of some persons.

    Raises:
        RecordError: nobody is left.
    """
    others = {person: texts for person, texts in choices.items() if person not in persons}
    if not others:
        raise RecordError("item-knn learns from other persons than those of the benchmark; nobody is left", file)
    return others
