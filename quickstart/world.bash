# shellcheck shell=bash
# Steps of ./quickstart.sh on the simulated world; sourced by it after quickstart/steps.bash.

expect world 15; expect blank 10; expect lessons 220; expect sft 100; expect rl_data 4; expect rl 350
expect summaries 200; expect scores 160; expect figures 6

BASE=$OUT
source quickstart/training.bash

step world python -m alignxplore.world --out "$OUT/data" --seed "$SEED" --train-users "$TRAIN_USERS" \
    --val-users "$VAL_USERS" --test-users "$TEST_USERS" --sft-users "$SFT_USERS" --judge-rows "$JUDGE_ROWS" \
    --reader-rows "$READER_ROWS"
step blank python -m alignxplore.world.tiny --out "$OUT/models/blank" --seed "$SEED"

lesson() {  # DATA MODEL SEED
    show python -m alignxplore.world.lessons --base "$OUT/models/blank" --data "$OUT/data/$1.jsonl" \
        --out "$OUT/models/$2" --seed "$3"
}
lessons() {  # all at once; the second judge has its own seed and data and is never used as reward
    local pupil status=0 pupils=()
    lesson judge judge $((SEED + 10)) & pupils+=("$!")
    lesson judge2 judge2 $((SEED + 20)) & pupils+=("$!")
    lesson reader base "$SEED" & pupils+=("$!")
    for pupil in "${pupils[@]}"; do wait "$pupil" || status=$?; done
    return "$status"
}
step lessons lessons

more=()
items more "$SFT_OPTIONS"
step sft train_sft "$OUT/models/base" "$OUT/data/sft.jsonl" "$OUT/models/sft" "${more[@]}"
step rl_data rl_parquet "$OUT/data/rl_train" "$OUT/data/rl_val"
step rl train_rl "$OUT/models/sft" "$OUT/data/rl_train.parquet" "$OUT/rl"
step summaries write_summaries "$OUT/eval" untrained="$OUT/models/base" sft="$OUT/models/sft" sft+rl="$OUT/rl/model"
step scores score_summaries "$OUT/eval" untrained sft sft+rl

draw() {
    show python figures/plots.py --results "$OUT/eval/results.json" --out "$OUT/figures" &&
        show python figures/rl_curves.py --run "$OUT/rl/metrics.jsonl" --out "$OUT/figures/rl_curves.png" &&
        cp "$OUT/eval/results.json" "$OUT/eval/report.md" "$OUT/eval/report.html" "$OUT/"
}
step figures draw
