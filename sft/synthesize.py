"""SFT rows from users' histories: a teacher writes summaries, a judge verifies them, users pass through on their own.

    python synthesize.py --data train_users.jsonl --scores signal_scores/scores.jsonl --out synthesis \\
        --teacher teacher=Qwen/Qwen3-32B --teacher_arguments "--tensor-parallel-size 4"

Comes after signal_model.py and before prepare_dataset.py. Teacher and judge are folders, hub ids or URLs. Users run
side by side with no barrier between steps, and the funnel is printed as they pass; every request is journalled, so a
killed run repeats only what was in flight. `--check` looks at users, scores and models, and starts nothing. Writes:

    sft.jsonl      two rows a user who passed; funnel.json, funnel.png: how many users came how far
    failures.jsonl examples of each way to fail, for reading;  calls.jsonl, users.jsonl: the journals
"""

from alignxplore.command import run
from alignxplore.synthesis.pipeline import SynthesisOptions, synthesize

if __name__ == "__main__":
    run(synthesize, SynthesisOptions, __doc__)
