#!/usr/bin/env bash
# From nothing to the table: make the environment, then run the whole pipeline for real on a CPU with tiny models.
#
#   ./quickstart.sh                 people's choices (MovieLens): SFT, streaming GRPO, evaluation, table and plots
#   DATA=RAW ./quickstart.sh        the same on another MovieLens edition, whose raw files are in the folder RAW
#   ./quickstart.sh --world         the same in a simulated world, where the true preferences are known
#   ./quickstart.sh --out DIR       where everything goes (default: runs/quickstart, or runs/world)
#   ./quickstart.sh --out DIR --evaluate RAW    only evaluate the models of DIR, on the persons of another MovieLens
#                                   edition (folder RAW, at most 250 persons); results and report go to DIR/other
#   ./quickstart.sh --no-install    in the environment that is active now; nothing is installed
#   ./quickstart.sh --check         print the steps, which are done and how long the others take; start nothing
#
# Needs two cores and 12 GB of memory. Interrupted? Run the same command again: what is finished is
# kept. Every step is made of ordinary commands of this repository; they are printed before they run, and what they say
# is in DIR/logs. Other sizes or another seed need another folder. NPROC=2 SFT_OPTIONS="--deepspeed
# sft/configs/zero3.json" trains on two processes. The steps are in alignxplore/quickstart/. Settings of the scripts
# that they run (STAGES or MODE of RL, say) are what the printed commands name: one that is exported changes nothing.
#
# Variables and their defaults:
#   DATA=data/movielens/ml-latest-small raw folder of a MovieLens edition
#   SEED=1                           seed of splits, windows, models and draws
#   TEST_WINDOWS=7                   windows of each test person: what the intervals of the table need
#   WINDOWS=60                       windows of each person whose choices the policy learns from
#   JUDGE_WINDOWS=100                windows of each person whose choices a judge learns from
#   SFT_WINDOWS=12                   windows of each of these persons that the teacher describes
#   RL_STEPS=40                      RL updates
#   RL_LR=2e-4                       their learning rate
#   SFT_OPTIONS=                     more options of sft/sft.py
#
# Variables of --world and their defaults:
#   SEED=1                           seed of the world, the models and all draws
#   TEST_USERS=600                   users of the test benchmark: what the intervals of the table need
#   TRAIN_USERS=2000                 users whose histories RL trains on
#   VAL_USERS=64                     held-out users during RL
#   SFT_USERS=1500                   users behind the SFT rows
#   JUDGE_ROWS=12000                 rows each judge learns from
#   READER_ROWS=4000                 rows from which the untrained policy learns to read, as Qwen3 has before SFT
#   RL_STEPS=40                      RL updates
#   RL_LR=3e-4                       their learning rate
#   SFT_OPTIONS=                     more options of sft/sft.py
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
help_if_asked "$@"
become_python alignxplore.quickstart "$@"
