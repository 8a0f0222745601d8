#!/usr/bin/env bash
# Who should answer for the next stage? A study in the simulated world: RL with credit paper and centered, at equal generated tokens.
#
#   bash studies/credit.sh                                      # after ./quickstart.sh; about 7 minutes a run on two cores
#   BASE=runs/other OUT=runs/studies/other SEEDS=1 RL_STEPS=20 bash studies/credit.sh
#   BASE=runs/other OUT=runs/trial CREDITS="paper centered" SEEDS=1 RL_STEPS=2 USERS=24 bash studies/credit.sh    # does it run?
#
# Takes from a finished quick start (BASE) the SFT model, both judges and the users, and trains the SFT model once for each credit and seed.
# Every update has 128 summaries, whatever the credit:
#   paper      16 users, 4 summaries of each of 2 stages; those not drawn get a constant for the stage they did not see
#   centered   the same, with the judge's confidence without any summary in the place of the constant
# Then one evaluation of all of them as a stream by both judges; the reward came from the first. Leaves OUT/results.json, OUT/report.md
# (with the tokens that each credit generated) and OUT/credit.png. Interrupted? Run the same command again.
#
# --no-install: in the environment that is active now; nothing is installed.
# Variables: BASE runs/quickstart, OUT runs/studies/credit, CREDITS and SEEDS "1 2 3", RL_STEPS 40, RL_LR 3e-4,
#            USERS of the test benchmark (all)
set -euo pipefail

case "${1:-}" in -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;; esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BASE=$(realpath -m "${BASE:-$here/runs/quickstart}") OUT=$(realpath -m "${OUT:-$here/runs/studies/credit}")  # as seen by who called
cd "$here"
CREDITS=${CREDITS:-paper centered} SEEDS=${SEEDS:-1 2 3} RL_STEPS=${RL_STEPS:-40} RL_LR=${RL_LR:-3e-4} USERS=${USERS:-}
[[ -f $BASE/results.json ]] || { echo "credit.sh: $BASE holds no finished quick start; run ./quickstart.sh first, or set BASE" >&2; exit 1; }
for credit in $CREDITS; do
    [[ $credit =~ ^(paper|centered)$ ]] || { echo "credit.sh: unknown credit '$credit'; known: paper centered" >&2; exit 2; }
done

export DEVICE=cpu
source ./setup.sh
prepare_environment "$@"
source quickstart/steps.bash
source quickstart/training.bash
same_settings BASE RL_STEPS RL_LR USERS

credit_run() {  # CREDIT SEED STEPS
    local -x CREDIT=$1 SEED=$2 RL_STEPS=$3 BATCH=16 MINI_BATCH=16 TEST_EVERY=10
    train_rl "$BASE/models/sft" "$BASE/data/rl_train.parquet" "$OUT/$1.$2"
}

policies=(sft="$BASE/models/sft") names=(sft) runs=()
for credit in $CREDITS; do
    for seed in $SEEDS; do
        expect "$credit.$seed" $((90 + 9 * RL_STEPS)); runs+=("$credit.$seed"); names+=("$credit.$seed")
        policies+=("$credit.$seed=$OUT/$credit.$seed/model")
    done
done
expect summaries $((60 * ${#names[@]})); expect scores $((30 * ${#names[@]})); expect figure 5

for seed in $SEEDS; do  # seed by seed, so that an early look compares all credits
    for credit in $CREDITS; do
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
