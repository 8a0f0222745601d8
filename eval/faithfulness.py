"""Is what a summary states borne out by the choices that it was written from? Each statement is supported,
contradicted or not there, with the interactions behind it.

    python eval/faithfulness.py --judge qwen=Qwen/Qwen3-8B --data mind=mind_upi.jsonl --out outputs/eval
    python eval/faithfulness.py --judge judge=models/judge --data movielens=test.jsonl --out eval --known films

After gen_preference.py, best after evaluate.py, whose report then marks the evidence of a statement in the history. A
summary is taken apart into statements (sentences, lines, parts of a list). The downstream model is asked about each
choice that the policy was shown, with the statement and without it. It is asked by its own question (judge.jinja, both
orders, one token). With --told alone it is told the statement alone, or nothing. With --told in_place it is told the
summary, or the summary without the statement. A statement that adds --lift to the log-odds of what was chosen is borne
out there; one that takes as much away is contradicted there. It is supported where more choices are for it than
against it. Where nothing was passed over, another user's item stands against what was chosen, drawn by content hash.

Costs about 2 x interactions x (statements + 1) questions of one token a summary; --limit keeps that small. Journalled:
the same command finishes what is missing. Writes evidence.jsonl and table_faithfulness.* (with --known also
table_evidence.*) into --report.
"""

from alignxplore.command import run
from alignxplore.evaluation.faithfulness import FaithfulnessOptions, faithfulness

if __name__ == "__main__":
    run(faithfulness, FaithfulnessOptions, __doc__)
