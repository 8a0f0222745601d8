"""Instruction rows for the TALLRec baseline: will the user like this one item, Yes or No? From the same records as all
else.

    python tallrec.py --data train_users.jsonl --out tallrec.jsonl --per_user 2
    bash sft.sh --config configs/tallrec_qwen3_8b.yaml --train_data tallrec.jsonl
    python merge_adapter.py --adapter outputs/tallrec --out outputs/tallrec_merged
    python ../eval/evaluate.py --judge tallrec=outputs/tallrec_merged --judge_format tallrec=yes_no \\
        --data ... --out ...

The history is shown with likes and dislikes; each question has one row for the chosen and one for the passed-over
item, so that always saying Yes is right half of the time. A history that is too long for training loses its oldest
choices here, where the two rows are still together. Trained with LoRA by sft.py. TALLRec: arXiv 2305.00447.
"""

from alignxplore.baselines.tallrec import TallrecOptions, write_rows
from alignxplore.command import run

if __name__ == "__main__":
    run(write_rows, TallrecOptions, __doc__)
