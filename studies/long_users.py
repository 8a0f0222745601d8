"""Users of the simulated world whose histories are long enough for data synthesis. Used by `studies/signal_to_sft.sh`.

    python studies/long_users.py --out long_users.jsonl --users 600

Synthesis cuts a history in thirds and wants several choices to be foreseen in each of the last two; the dozen choices
of the quick start's users are too few for that. These users have names of their own, so none of them is in a
benchmark.
"""

from alignxplore.world.long_users import main

if __name__ == "__main__":
    main()
