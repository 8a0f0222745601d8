"""Score preference summaries with one or several downstream models. Second half of the evaluation.

    python eval/evaluate.py --judge qwen=Qwen/Qwen3-8B --data mind=mind_upi.jsonl --out outputs/eval

Reads every summary that gen_preference.py wrote under --out, adds the direct setting and the baselines that never read
the history, and writes results.json, scores.jsonl and writing.md. Each judge is loaded once; every judgement is
journalled, so the same command finishes only what is missing.
"""

from alignxplore.errors import one_sentence
from alignxplore.evaluation.scoring import main

if __name__ == "__main__":
    with one_sentence():
        main()
