"""BLEU and ROUGE-L of an answer against its reference, beside HiCUPID's score. They count words and know nothing of
the user. By sacrebleu and rouge-score; lower case, punctuation split off.
"""

import re
from functools import cache
from typing import Any


@cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    # Orders 2 to 4 are smoothed by one (Lin and Och 2004), so that one longer than the answer counts as 1. With
    # `effective_order` the library has nothing to warn of.
    return BLEU(lowercase=True, smooth_method="add-k", smooth_value=1, effective_order=True)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds, as it brings nltk
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):
        """Words and single marks of any script; the library's own knows a to z only and scores other answers 0."""

        def tokenize(self, text: str) -> list[str]:
            return re.findall(r"\w+|[^\w\s]", text.lower())

    return RougeScorer(["rougeL"], tokenizer=Words())


def bleu(answer: str, reference: str) -> float:
    """Sentence BLEU-4 in [0, 1] with brevity penalty (Papineni et al. 2002)."""
    return _bleu().sentence_score(answer, [reference]).score / 100


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence, in [0, 1] (Lin 2004)."""
    return _rouge().score(reference, answer)["rougeL"].fmeasure
