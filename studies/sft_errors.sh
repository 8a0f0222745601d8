#!/usr/bin/env bash
# How much can RL mend? A study in the simulated world: SFT rows with other shares of errors, and three controls.
#
#   bash studies/sft_errors.sh             # after ./quickstart.sh --world; about 8 minutes a variant on two cores
#   BASE=runs/other OUT=runs/studies/other bash studies/sft_errors.sh
#
# Takes from a finished quick start (BASE) the untrained policy, both judges, the users and its own SFT and SFT + RL
# models, and trains
#   clean      SFT rows without errors or gaps, then RL
#   less       15 % of the statements wrong (quick start: 25 %), then RL
#   more       40 % wrong, then RL
#   longer     the quick start's SFT rows for five epochs, which takes about as long as SFT + RL; no RL
#   shuffled   RL whose reward knows nothing: in each target the two items change places by the toss of a coin
# Then one evaluation of all of them. Leaves OUT/results.json, OUT/report.md and OUT/errors.png. Interrupted? Run the
# same command again. --check prints the steps and starts nothing; --no-install takes the environment that is active
# now. Seed, RL steps and learning rate are those of BASE.
#
# Variables and their defaults:
#   OUT=runs/studies/sft_errors      folder of the study
#   BASE=runs/world                  a finished quick start of the simulated world
#   VARIANTS=clean less more longer shuffled which to train
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
help_if_asked "$@"
become_python "$ROOT/studies/sft_errors.py" "$@"
