"""RL rows from scored choices: for each user the targets from which there is most to learn. Comes after
signal_model.py.

    python select_rl.py --data train_users.jsonl --strong signal_scores/scores.jsonl --weak weak_scores/scores.jsonl \\
        --out rl_train.jsonl --signal_share 0.5 --least_strong 0.5

signal = log P_strong(actual choice) - log P_weak(actual choice): high where seeing more of the user pays. This
definition is inferred from the published code, which names the field but never computes it; both score files are
therefore options, and the counts name the two models by what `signal_model.py score` recorded beside them. Thresholds,
over all choices of all users (a, b and c of the published code, whose names are still taken):

    --signal_share a        keeps the share a with the highest signal
    --least_strong b        keeps P_strong >= b
    --strong_quantile c     keeps P_strong between the quantiles c - 0.1 and c of what is left (published: one decile;
                            not given: all)

A user whom one of the models has not scored is an error; a choice that only the weak one has not scored is left out
and counted. Per user the K targets with the highest sum of signals are taken; the rest of the history after the last
one is cut off. The output is what verl/examples/data_preprocess/upi_streaming_dataset.py reads. Beside it:
.counts.json and .png.
"""

from alignxplore.command import run
from alignxplore.synthesis.selection import SelectionOptions, select_rows

if __name__ == "__main__":
    run(select_rows, SelectionOptions, __doc__)
