"""Benchmarks across tasks: the history of a user from one task, the target of the same user from another. For the
cross-task table.

    python eval/cross_task.py --data world_films=test_films_upi.jsonl world_news=test_news_upi.jsonl --out outputs/cross_task/data

writes, for the people who are in both files, A~to~B_upi.jsonl and B~to~A_upi.jsonl, and A_upi.jsonl and B_upi.jsonl
(history and target of one task, for comparison). eval/ reads them like any benchmark: what is shown of a history
follows the rule of its own task. The 1,000 users of the published cross-task table are not public; any two files that
share users give such a table.
"""

from alignxplore.errors import one_sentence
from alignxplore.evaluation.cross_task import main

if __name__ == "__main__":
    with one_sentence():
        main()
