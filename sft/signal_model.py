"""The signal model: which of a user's choices can be foreseen from those before them. First step of data synthesis.

    python signal_model.py prepare --data train_users.jsonl --model Qwen/Qwen3-1.7B --out signal_set
    bash sft.sh --config configs/signal_qwen3_1p7b.yaml --train_data signal_set --out outputs/signal
    python signal_model.py score --model outputs/signal --data train_users.jsonl --out signal_scores
    accelerate launch signal_model.py score ...                            # the users shared out over all GPUs
    torchrun --nproc_per_node 2 signal_model.py score ...                  # the same over two CPU processes

`prepare` tokenises each user's stream once, with labels on the letters only; `sft.py` trains on it like on any
prepared set. Of several processes launched together (one a node: synthesize.sh) the first one does it, and the others
wait. `score` writes scores.jsonl: {"id", "uid", "scores": [{"position", "p", "logprob"}, ...], "dropped"}. There p is
P(actual choice). By the id, the record's content hash, synthesize.py and select_rl.py find it. `--check` counts users
and what is done, and starts nothing.
Resumable: run the same command again, with any number of processes. Memory: logits exist at the letters only.
"""

from alignxplore.command import run_commands
from alignxplore.synthesis.signal_model import PrepareOptions, ScoreOptions, prepare_streams, score_users

if __name__ == "__main__":
    run_commands({"prepare": (prepare_streams, PrepareOptions), "score": (score_users, ScoreOptions)}, __doc__)
