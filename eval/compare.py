"""A paired test between any two rows of our tables: same users and targets, difference in points, interval, p.

    python eval/compare.py --report outputs/eval --first policy=base --second policy=ours
    python eval/compare.py --report outputs/eval --first setting=streaming --second setting=full --where policy=ours
    python eval/compare.py --report outputs/robustness/default --first benchmark=mind --second benchmark=mind~swapped20
    python eval/compare.py --report outputs/eval --second_report outputs/older --where policy=ours

Rows are chosen by policy, setting, benchmark, judge and protocol; what is not named must be the same in both and gives
one line each. The difference is second − first, over generation seeds where there are several. What
the columns are stands below the table.
"""

from alignxplore.command import run
from alignxplore.evaluation.comparisons import CompareOptions, compare_rows

if __name__ == "__main__":
    run(compare_rows, CompareOptions, __doc__)
