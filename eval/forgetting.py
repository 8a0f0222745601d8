"""A test of a policy: the interactions behind a statement are dropped, and the summary is derived anew. Is the
statement gone, and do the others stay?

    python eval/forgetting.py --data mind=mind_upi.jsonl --evidence outputs/eval --policy ours --out outputs/forgetting
    python eval/gen_preference.py --model ours=... --data outputs/forgetting/data --out outputs/forgetting \\
        --settings full
    python eval/forgetting.py --data mind=mind_upi.jsonl --evidence outputs/eval --policy ours --out outputs/forgetting

After faithfulness.py, whose evidence says which interactions a statement rests on. The first command draws one
supported statement a user and writes three copies of the interactions that summaries were written from. One is without
the interactions behind the statement. One is without as many others that say nothing of it. One has all of them. The
second derives the summaries anew, with the prompt set, format and sampling that the first ones had. The third prints
the table and writes it to table_forgetting.*. Its options and the evidence must be those of the first. Two statements
say the same where most of their words do and neither likes what the other dislikes
(alignxplore/evaluation/statements.py).
"""

from alignxplore.command import run
from alignxplore.evaluation.evidence_dropped import ForgettingOptions, forgetting

if __name__ == "__main__":
    run(forgetting, ForgettingOptions, __doc__)
