#!/usr/bin/env bash
# Is it luck, and is it the reward? Quick starts on films of several seeds as one table, and RL with shuffled rewards.
#
#   for s in 2 3; do SEED=$s ./quickstart.sh --out runs/quickstart$s; done       # after ./quickstart.sh
#   bash studies/films_seeds.sh
#
# Another seed has other persons for policy, judges and test, other windows, models and draws. Upon the first run of
# BASES, RL is done once more with its rewards dealt out at random within each group of summaries, and evaluated. What
# helps then is not the reward. Leaves OUT/report.md and OUT/results.json: accuracy pooled over seeds and each seed's,
# and differences on the same rows. Interrupted? Run the same command again.
#
# --check prints the steps and starts nothing; --no-install takes the environment that is active now.
#
# Variables and their defaults:
#   OUT=runs/studies/films_seeds     folder of the study
#   BASES=runs/quickstart runs/quickstart2 runs/quickstart3 finished quick starts on films, of different seeds
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
help_if_asked "$@"
become_python "$ROOT/studies/films_seeds.py" "$@"
