"""One picture of one or several RL runs, from their metrics.jsonl: what they earned, how their answers changed, where
the time went.

    python figures/rl_curves.py --run outputs/rl/metrics.jsonl --out outputs/figures/rl_curves.png
    python figures/rl_curves.py --run paper=a/metrics.jsonl centered=b/metrics.jsonl --out compared.png

First what to believe: the reward of held-out users under each judge, those that give the reward and those that only
validate. It stands with 95 % intervals of persons and with its change since step 0, user by user. Then the users that
it trains on: reward by stage; format failures and lost rollouts; length of the summaries; how far rollout and trainer
probabilities lie apart; the bonus of drawn rollouts (what credit `paper` costs); seconds by part. There points are
steps, and lines are running means. With one run the colours are judges or stages, with several they are runs.
`quickstart.sh` calls it at its end.
"""

from alignxplore.command import run
from alignxplore.rl.curves import CurvesOptions, draw_curves

if __name__ == "__main__":
    run(draw_curves, CurvesOptions, __doc__)
