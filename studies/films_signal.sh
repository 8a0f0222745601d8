#!/usr/bin/env bash
# SFT rows for films by the whole synthesis, of people's real choices.
#
#   bash studies/films_signal.sh                                 # after ./quickstart.sh
#   BASE=runs/other OUT=runs/studies/other WINDOWS=3 bash studies/films_signal.sh
#
# Takes the models and the benchmark of a finished quick start on films (BASE) and windows of 18 choices of the persons
# from whom its policy learnt, then
#   synthesis  trains a signal model on these windows, whose scores choose the targets; a teacher
#              (alignxplore.films.teacher, behind an OpenAI-compatible server) writes a summary for each target, the
#              quick start's judge verifies them, windows pass or leave: sft.jsonl, funnel.json, funnel.png in
#              OUT/synthesis
#   sft        trains the untrained policy on these rows alone
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
#   WINDOWS=10                       windows of each person whose choices the policy learns from
#   SIGNAL=0                         0: every choice can be a target, as a tiny model is sure of none; published: 0.9
#   EPOCHS=2                         of SFT
#   PORT=8778                        of the teacher
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
help_if_asked "$@"
become_python "$ROOT/studies/films_signal.py" "$@"
