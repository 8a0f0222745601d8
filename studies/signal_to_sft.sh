#!/usr/bin/env bash
# From raw behaviour to a trained policy and to RL rows, in the simulated world: everything that comes before SFT, for
# real.
#
#   bash studies/signal_to_sft.sh                                # after ./quickstart.sh --world
#   BASE=runs/other OUT=runs/studies/other USERS=120 LIMIT=60 bash studies/signal_to_sft.sh
#
# Takes the models and benchmarks of a finished quick start (BASE) and new users with longer histories, then
#   signal     trains a signal model on their streams and scores every choice; the weak one is a checkpoint
#   synthesis  a teacher (alignxplore.world.oracle, behind an OpenAI-compatible server) writes summaries, the quick
#              start's judge verifies them, users pass or leave: OUT/synthesis/sft.jsonl, funnel.json, funnel.png
#   sft        trains the untrained policy on these rows alone; eval compares it with the quick start's own
#   rl         selects RL rows by signal, checks their overlap with the benchmark, and starts RL upon the SFT model
# Leaves OUT/results.json and OUT/report.md. Interrupted? Run the same command again.
#
# --check prints the steps and starts nothing; --no-install takes the environment that is active now. The seed is that
# of BASE.
#
# Variables and their defaults:
#   OUT=runs/studies/signal_to_sft   folder of the study
#   BASE=runs/world                  a finished quick start of the simulated world
#   USERS=1200                       whose behaviour it begins with
#   LIMIT=600                        benchmark users
#   SIGNAL=0.5                       a tiny model is hardly surer; published: 0.9
#   EPOCHS=6                         of SFT
#   RL_STEPS=2                       RL updates
#   RL_LR=3e-4                       their learning rate
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
help_if_asked "$@"
become_python "$ROOT/studies/signal_to_sft.py" "$@"
