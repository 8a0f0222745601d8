#!/usr/bin/env bash
# SFT rows for films with targets that a signal model chose, of people's real choices.
#
#   bash studies/films_signal.sh                                 # after ./quickstart.sh
#   BASE=runs/other OUT=runs/studies/other SIGNAL=0.6 bash studies/films_signal.sh
#
# Takes the models, the windows and the benchmark of a finished quick start on films (BASE), whose synthesis looks for
# targets among all choices, then
#   synthesis  trains a signal model on these windows, whose scores choose the targets; the same teacher and judge
#              otherwise: sft.jsonl, funnel.json, funnel.png in OUT/synthesis
#   sft        trains the untrained policy on these rows
#   summaries, scores    compare it with the quick start's own policies, under both judges
# Leaves OUT/results.json, OUT/report.md, OUT/statements.json (what the summaries state, against the true tally), and
# in OUT/synthesis/signal_scores/foresight.json how many choices the signal model foresees. Interrupted? Run the same
# command again.
#
# --check prints the steps and starts nothing; --no-install takes the environment that is active now. The seed is that
# of BASE.
#
# Variables and their defaults:
#   OUT=runs/studies/films_signal    folder of the study
#   BASE=runs/quickstart             a finished quick start on films
#   SIGNAL=0.5                       P(actual choice) of a target; a tiny model is hardly ever sure; published: 0.9
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
help_if_asked "$@"
become_python "$ROOT/studies/films_signal.py" "$@"
