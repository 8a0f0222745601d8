#!/usr/bin/env bash
# Who should answer for the next stage? A study in the simulated world: RL with credit paper and centered, at equal
# generated tokens.
#
#   bash studies/credit.sh                                  # after ./quickstart.sh; about 7 minutes a run on two cores
#   BASE=runs/other OUT=runs/studies/other SEEDS=1 RL_STEPS=20 bash studies/credit.sh
#   BASE=runs/other OUT=runs/trial CREDITS="paper centered" SEEDS=1 RL_STEPS=2 USERS=24 bash studies/credit.sh
#
# Takes from a finished quick start (BASE) the SFT model, both judges and the users, and trains the SFT model once for
# each credit and seed. Every update has 128 summaries, whatever the credit:
#   paper      16 users, 4 summaries of each of 2 stages; those not drawn get a constant for the stage they did not see
#   centered   the same, with the judge's confidence without any summary in the place of the constant
# Then one evaluation of all of them as a stream by both judges; the reward came from the first. Leaves
# OUT/results.json, OUT/report.md (with the tokens that each credit generated) and OUT/credit.png. Interrupted? Run the
# same command again.
#
# --check prints the steps and starts nothing; --no-install takes the environment that is active now.
# BASE is runs/quickstart, OUT is runs/studies/credit unless set.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/study.bash"

CREDITS=${CREDITS:-paper centered}  # which to train with
SEEDS=${SEEDS:-1 2 3}               # seeds of each
RL_STEPS=${RL_STEPS:-40}            # updates of each run
RL_LR=${RL_LR:-3e-4}                # their learning rate
USERS=${USERS:-}                    # of the test benchmark (default: all)
credits=() seeds=()
items credits "$CREDITS"
items seeds "$SEEDS"
for credit in "${credits[@]}"; do
    [[ $credit =~ ^(paper|centered)$ ]] || refuse "unknown credit '$credit'; known: paper centered"
done

source quickstart/steps.bash
source quickstart/training.bash
same_settings BASE RL_STEPS RL_LR USERS

credit_run() {  # CREDIT SEED STEPS
    local -x CREDIT=$1 SEED=$2 RL_STEPS=$3 BATCH=16 MINI_BATCH=16 TEST_EVERY=10
    train_rl "$BASE/models/sft" "$BASE/data/rl_train.parquet" "$OUT/$1.$2"
}

policies=(sft="$BASE/models/sft") names=(sft) runs=()
for credit in "${credits[@]}"; do
    for seed in "${seeds[@]}"; do
        expect "$credit.$seed" $((90 + 9 * RL_STEPS)); runs+=("$credit.$seed"); names+=("$credit.$seed")
        policies+=("$credit.$seed=$OUT/$credit.$seed/model")
    done
done
expect summaries $((60 * ${#names[@]})); expect scores $((30 * ${#names[@]})); expect figure 5

for seed in "${seeds[@]}"; do  # seed by seed, so that an early look compares all credits
    for credit in "${credits[@]}"; do
        run=("$credit.$seed" credit_run "$credit" "$seed" "$RL_STEPS")
        done_before "${run[@]}" || serve_judge  # one server for all runs
        step "${run[@]}"
    done
done
stop_servers
step summaries write_summaries "$OUT/eval" "${policies[@]}" --settings streaming ${USERS:+--limit "$USERS"}
step scores score_summaries "$OUT/eval" "${names[@]}" --no_direct ${USERS:+--limit "$USERS"}
step figure python studies/plot_credit.py --study "$OUT" --runs "${runs[@]}"
where_the_time_went
printf '\nreport   %s\nfigure   %s\n' "$OUT/report.md" "$OUT/credit.png"
