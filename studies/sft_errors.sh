#!/usr/bin/env bash
# How much can RL mend? A study in the simulated world: SFT rows with other shares of errors, and three controls.
#
#   bash studies/sft_errors.sh                          # after ./quickstart.sh; about 8 minutes a variant on two cores
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
# now. BASE is runs/quickstart, OUT is runs/studies/sft_errors unless set. Seed, RL steps and learning rate are those
# of BASE.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/study.bash"

VARIANTS=${VARIANTS:-clean less more longer shuffled}
variants=()
items variants "$VARIANTS"
source quickstart/steps.bash
source quickstart/training.bash
take_settings "$BASE" SEED RL_STEPS RL_LR  # what is compared with BASE's own models is made as they were
same_settings BASE SEED RL_STEPS RL_LR

declare -A ERRORS=([clean]=0 [less]=0.15 [more]=0.40) GAPS=([clean]=0 [less]=0.10 [more]=0.10)
for variant in "${variants[@]}"; do
    case $variant in
        clean | less | more) expect "$variant.rows" 10; expect "$variant.sft" 110; expect "$variant.rl" 350 ;;
        longer) expect longer.sft 420 ;;
        shuffled) expect shuffled.rows 2; expect shuffled.rl 350 ;;
        *) refuse "unknown variant '$variant'; known: clean less more longer shuffled" ;;
    esac
done
expect summaries 600; expect scores 600; expect figure 5

rows() {  # VARIANT: SFT rows of the same users with other faults
    show python -m alignxplore.world --out "$OUT/$1/data" --seed "$SEED" --error-rate "${ERRORS[$1]}" \
        --gap-rate "${GAPS[$1]}" --train-users 1 --val-users 1 --test-users 1 --judge-rows 1 --reader-rows 1
}
shuffled_rows() {
    show python studies/shuffle_targets.py --data "$BASE/data/rl_train.jsonl" --out "$OUT/shuffled/rl_train.jsonl" &&
        rl_parquet "$OUT/shuffled/rl_train"
}

policies=(sft="$BASE/models/sft" sft+rl="$BASE/rl/model") names=(sft sft+rl)
keep() { policies+=("$1=$2"); names+=("$1"); }
for variant in "${variants[@]}"; do
    case $variant in
        clean | less | more)
            step "$variant.rows" rows "$variant"
            step "$variant.sft" train_sft "$BASE/models/base" "$OUT/$variant/data/sft.jsonl" "$OUT/$variant/sft"
            step "$variant.rl" train_rl "$OUT/$variant/sft" "$BASE/data/rl_train.parquet" "$OUT/$variant/rl"
            keep "sft.$variant" "$OUT/$variant/sft"; keep "sft+rl.$variant" "$OUT/$variant/rl/model"
            ;;
        longer)
            step longer.sft train_sft "$BASE/models/base" "$BASE/data/sft.jsonl" "$OUT/longer/sft" --num_train_epochs 5
            keep sft.longer "$OUT/longer/sft"
            ;;
        shuffled)
            step shuffled.rows shuffled_rows
            step shuffled.rl train_rl "$BASE/models/sft" "$OUT/shuffled/rl_train.parquet" "$OUT/shuffled/rl"
            keep sft+rl.shuffled "$OUT/shuffled/rl/model"
            ;;
    esac
done

step summaries write_summaries "$OUT/eval" "${policies[@]}"
step scores score_summaries "$OUT/eval" "${names[@]}"

figure() {
    cp "$OUT/eval/results.json" "$OUT/eval/report.md" "$OUT/" &&
        show python studies/plot_sft_errors.py --results "$OUT/results.json" --out "$OUT/errors.png"
}
step figure figure
where_the_time_went
printf '\nresults  %s\nfigure   %s\n' "$OUT/results.json" "$OUT/errors.png"
