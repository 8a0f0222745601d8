"""A simulated world with known preferences: the data of the quick start and of the tests, as many as wanted.

    python -m alignxplore.world --out runs/world/data --seed 1

writes, in the contracts of the real data (`records.py`), with disjoint users:

    train_users.jsonl val_users.jsonl            users with a history and a target
    test_films_upi.jsonl test_news_upi.jsonl     benchmarks; the same users in both domains
    rl_train.jsonl rl_val.jsonl                  RL rows of the train and the validation users
    sft.jsonl                                    SFT rows whose conclusions have a stated share of errors and gaps
    reader.jsonl                                 rows from which the untrained policy learns to read
    judge.jsonl judge2.jsonl                     rows from which two judges learn; they share no user
    world.json                                   settings, best possible accuracy and chance of every benchmark
"""

from alignxplore.command import run
from alignxplore.world.files import WorldOptions, make_world

if __name__ == "__main__":
    run(make_world, WorldOptions, __doc__)
