#!/usr/bin/env bash
# Who should answer for the next stage? A study in the simulated world: RL with credit paper and centered, at equal
# generated tokens.
#
#   bash studies/credit.sh                 # after ./quickstart.sh --world; about 7 minutes a run on two cores
#   BASE=runs/other OUT=runs/studies/other SEEDS=1 RL_STEPS=20 bash studies/credit.sh
#   BASE=runs/other OUT=runs/trial CREDITS="paper centered" SEEDS=1 RL_STEPS=2 USERS=24 bash studies/credit.sh
#
# Takes from a finished quick start (BASE) the SFT model, both judges and the users. Trains the SFT model once for each
# credit and seed. Every update has 128 summaries, whatever the credit:
#   paper      16 users, 4 summaries of each of 2 stages; those not drawn get a constant for the stage they did not see
#   centered   the same, with the judge's confidence without any summary in the place of the constant
# Then one evaluation of all of them as a stream by both judges; the reward came from the first. Leaves
# OUT/results.json, OUT/report.md (with the tokens that each credit generated) and OUT/credit.png. Interrupted? Run the
# same command again.
#
# --check prints the steps and starts nothing; --no-install takes the environment that is active now.
#
# Variables and their defaults:
#   OUT=runs/studies/credit          folder of the study
#   BASE=runs/world                  a finished quick start of the simulated world
#   CREDITS=paper centered           which to train with
#   SEEDS=1 2 3                      seeds of each
#   RL_STEPS=40                      updates of each run
#   RL_LR=3e-4                       their learning rate
#   USERS=                           of the test benchmark (default: all)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
help_if_asked "$@"
become_python "$ROOT/studies/credit.py" "$@"
