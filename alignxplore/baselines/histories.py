"""Baselines that read the history: how like the items of a target are to what the user chose before, without a policy
and without a judge.

bm25          the words of the items (Robertson and Zaragoza 2009)
item-knn      who else chose them: items are alike when the same training persons chose them (Sarwar et al. 2001)
embedding     their texts as a model of the hub embeds them

Each scores both items of a target against the interactions that a policy is shown; the greater score is foreseen.
BM25 and item-knn are a few lines of NumPy and SciPy here: none of the libraries that have them is among the pinned
ones, and only two items a row are ever scored.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.sparse import csr_matrix

from alignxplore.records import Interaction, RecordError, person_of, read_users

NEIGHBOURS = 20  # of an item among those of a history (item-knn)
K1, B = 1.5, 0.75  # of BM25, the usual values
_WORD = re.compile(r"\w+")


class Likeness(Protocol):
    """Says of one item how like it is to a history; None where it knows nothing of the item."""

    def __call__(self, item: str, history: Sequence[Interaction]) -> float | None: ...


def foresee(like: Likeness, history: Sequence[Interaction], target: Interaction) -> float:
    """1 where the chosen item is the more alike, 0.5 where both are alike or unknown, else 0.

    An item of which nothing is known counts as not alike at all.
    """
    chosen, rejected = (like(item, history) or 0.0 for item in target.items)
    return 0.5 if abs(chosen - rejected) < 1e-9 else float(chosen > rejected)


def chosen_less_rejected(values: dict[str, float], history: Sequence[Interaction]) -> float:
    """Mean over the chosen items of a history less the mean over those passed over, where there are any."""
    sides = ([x.chosen for x in history], [x.rejected for x in history if x.rejected is not None])
    chosen, rejected = (float(np.mean([values[text] for text in side])) if side else 0.0 for side in sides)
    return chosen - rejected


def texts_of(history: Iterable[Interaction]) -> dict[str, None]:
    """The different item texts of a history, in order."""
    return dict.fromkeys(text for x in history for text in (x.chosen, x.rejected) if text is not None)


@lru_cache(maxsize=1 << 14)
def _count(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


class Bm25:
    """The words of an item as a query, the items of a history as the documents.

    Args:
        texts: different texts of items, of which it learns how rare a word is and how long a text.
    """

    def __init__(self, texts: Iterable[str]):
        lengths, seen = [], Counter[str]()
        for text in texts:
            words = _count(text)
            lengths.append(words.total())
            seen.update(words.keys())
        self._mean = float(np.mean(lengths)) if lengths else 1.0
        self._rarity = {
            word: float(np.log(1 + (len(lengths) - count + 0.5) / (count + 0.5))) for word, count in seen.items()
        }

    def score(self, query: str, document: str) -> float:
        """BM25 of one text for the words of another."""
        words = _count(document)
        norm = K1 * (1 - B + B * words.total() / self._mean)
        found = ((word, words[word]) for word in _count(query) if word in words)
        return sum(self._rarity.get(word, 0.0) * count * (K1 + 1) / (count + norm) for word, count in found)

    def __call__(self, item: str, history: Sequence[Interaction]) -> float:
        return chosen_less_rejected({text: self.score(item, text) for text in texts_of(history)}, history)


class ItemKnn:
    """Cosine of two items over the training persons who chose them; an item's score is the sum over its nearest
    `NEIGHBOURS` among the chosen items of a history.

    Args:
        chosen: person → texts of all items that the person chose.
    """

    def __init__(self, chosen: dict[str, set[str]]):
        items = {
            text: place for place, text in enumerate(dict.fromkeys(x for texts in chosen.values() for x in texts))
        }
        pairs = [(row, items[text]) for row, texts in enumerate(chosen.values()) for text in sorted(texts)]
        rows, columns = zip(*pairs) if pairs else ((), ())
        taken_PI = csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(chosen), len(items)))
        self._items, self._persons_of = items, taken_PI.T.tocsr()
        self._norms = np.sqrt(np.asarray(taken_PI.sum(0)).ravel())

    def knows(self, item: str) -> bool:
        """Whether any training person chose it."""
        return item in self._items

    def __call__(self, item: str, history: Sequence[Interaction]) -> float | None:
        place, others = self._items.get(item), [self._items[x.chosen] for x in history if x.chosen in self._items]
        if place is None or not others:
            return None
        shared = np.asarray((self._persons_of[others] @ self._persons_of[place].T).todense()).ravel()
        cosines = shared / (self._norms[others] * self._norms[place])
        return float(np.sort(cosines)[-NEIGHBOURS:].sum())


def training_choices(files: Iterable[str | Path], without: set[str]) -> dict[str, set[str]]:
    """Person → all that the person chose in benchmark files, histories and targets, persons of `without` left out.

    Raises:
        RecordError: nobody is left, or a file cannot be read.
    """
    found: dict[str, set[str]] = defaultdict(set)
    files = list(files)
    for path in files:
        for record in read_users(path):
            if (person := person_of(record.user)) not in without:
                found[person] |= {x.chosen for x in (*record.history, record.target)}
    if not found:
        raise RecordError("item-knn learns from other persons than those of the benchmark; nobody is left", files[0])
    return found
