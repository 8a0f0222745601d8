"""Benchmarks across tasks: the history of a user from one task, the target of the same user from another. For the
cross-task table.

    python eval/cross_task.py --data world_films=films.jsonl world_news=news.jsonl --out outputs/cross_task/data

writes, for the people who are in both files:

    A~to~B_upi.jsonl, B~to~A_upi.jsonl   the history from one task, the target from the other
    A_upi.jsonl, B_upi.jsonl             history and target of one task, for comparison

eval/ reads them like any benchmark: what is shown of a history follows the rule of its own task. The 1,000 users of
the published cross-task table are not public; any two files that share users give such a table.
"""

from alignxplore.command import run
from alignxplore.evaluation.cross_task import CrossTaskOptions, write_crossed

if __name__ == "__main__":
    run(write_crossed, CrossTaskOptions, __doc__)
