"""Users and pairs that training rows share with benchmark files: counted, and dropped on demand.

    python overlap.py --train sft.jsonl rl_train.jsonl --benchmarks mind_upi.jsonl movielens_upi.jsonl
    python overlap.py --train sft.jsonl --benchmarks mind_upi.jsonl --out clean/             # writes clean/sft.jsonl
    python overlap.py --train VanillaH1/AlignXplorePlus-SFT --benchmarks VanillaH1/AlignXplorePlus-Benchmark

The last line compares the published sets. Training rows are user records, RL rows, or prompt/completion rows (items
are then looked for in the prompt's text). A pair is (chosen, rejected) in either order; a choice among k items holds
one for each item taken and each passed over. A user is a person of one data set, whatever the row's number behind "#".
Name the data set of a file that is not named after it: `mind=rl.jsonl`. `books_rl.jsonl` and `books_train.jsonl` are
of the set of `books_upi.jsonl`. A row that names no user is counted as such. A row is dropped if it shares its user,
or a pair with a benchmark's target.
"""

from alignxplore.command import run
from alignxplore.synthesis.overlap import OverlapOptions, overlap

if __name__ == "__main__":
    run(overlap, OverlapOptions, __doc__)
