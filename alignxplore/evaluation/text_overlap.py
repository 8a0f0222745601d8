"""BLEU and ROUGE-L of an answer against its reference, beside HiCUPID's score. They count words and know nothing of
the user.

Tokens are words and single marks, lower case, so the figures differ in the last digits from those of other toolkits.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

ORDERS = 4


def tokens(text: str) -> list[str]:
    """Words and punctuation marks, lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def bleu(answer: str, reference: str) -> float:
    """Sentence BLEU-4 in [0, 1] with brevity penalty (Papineni et al. 2002); orders 2 to 4 are smoothed by one (Lin
    and Och 2004)."""
    mine, theirs = tokens(answer), tokens(reference)
    if not mine or not theirs:
        return 0.0
    logs = 0.0
    for order in range(1, ORDERS + 1):
        found, wanted = _grams(mine, order), _grams(theirs, order)
        smooth = float(order > 1)
        matches, total = (found & wanted).total() + smooth, found.total() + smooth
        if not matches:
            return 0.0
        logs += math.log(matches / total) / ORDERS
    return math.exp(logs + min(0.0, 1 - len(theirs) / len(mine)))


def _grams(words: Sequence[str], order: int) -> Counter:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence, in [0, 1] (Lin 2004)."""
    mine, theirs = tokens(answer), tokens(reference)
    lengths = [0] * (len(theirs) + 1)
    for word in mine:
        diagonal = 0
        for place, other in enumerate(theirs, 1):
            best = diagonal + 1 if word == other else max(lengths[place], lengths[place - 1])
            diagonal, lengths[place] = lengths[place], best
    return 2 * lengths[-1] / (len(mine) + len(theirs)) if lengths[-1] else 0.0
