"""Score preference summaries with one or several downstream models. Second half of the evaluation.

    python eval/evaluate.py --judge qwen=Qwen/Qwen3-8B --data mind=mind_upi.jsonl --out outputs/eval
    python eval/evaluate.py --judge qwen=Qwen/Qwen3-8B --data mind=mind_upi.jsonl --out outputs/eval --check

Reads every summary that gen_preference.py wrote under --out. Adds the direct setting and the baselines that never read
the history. Writes results.json, scores.jsonl, run.json, report.md and report.html. Each judge is loaded once; every
judgement is journalled, so the same command finishes only what is missing.

`--check` says which judges would be asked how much. Summaries need not be there yet.
"""

from alignxplore.command import run
from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.scoring import score

if __name__ == "__main__":
    run(score, EvaluationArguments, __doc__)
