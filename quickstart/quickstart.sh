# Steps of ./quickstart.sh on the simulated world; sourced by it (OUT, sizes and the functions step, serve, expect come from there).

expect world 15; expect base 8; expect judges 110; expect sft 110; expect rl_data 4; expect rl 480
expect summaries 200; expect scores 260; expect figures 6

step world python -m alignxplore.world --out "$OUT/data" --seed "$SEED" --train-users "$TRAIN_USERS" --val-users "$VAL_USERS" \
    --test-users "$TEST_USERS" --sft-users "$SFT_USERS" --judge-rows "$JUDGE_ROWS"
step base python -m alignxplore.tiny --out "$OUT/models/base" --seed "$SEED"

train_judges() {  # both at once, one core each; the second has its own seed and data and is never used as reward
    python -m alignxplore.tiny_judge --data "$OUT/data/judge.jsonl" --base "$OUT/models/base" --out "$OUT/models/judge" --seed $((SEED + 10)) &
    local first=$!
    python -m alignxplore.tiny_judge --data "$OUT/data/judge2.jsonl" --base "$OUT/models/base" --out "$OUT/models/judge2" --seed $((SEED + 20))
    wait "$first"
}
step judges train_judges

export OMP_NUM_THREADS=2
step sft bash sft/sft.sh --config sft/configs/tiny.yaml --model_name_or_path "$OUT/models/base" --train_data "$OUT/data/sft.jsonl" \
    --output_dir "$OUT/models/sft" --seed "$SEED"
export OMP_NUM_THREADS=1

rl_data() {
    local part
    for part in train val; do
        python verl/examples/data_preprocess/upi_streaming_dataset.py --data "$OUT/data/rl_$part.jsonl" --out "$OUT/data/rl_$part.parquet"
    done
}
step rl_data rl_data

train_rl() {
    local url
    serve url "$OUT/models/judge" judge
    PRESET=tiny MODEL=$OUT/models/sft TRAIN=$OUT/data/rl_train.parquet VAL=$OUT/data/rl_val.parquet JUDGES="judge=$url" \
        JUDGE_TOKENIZER=$OUT/models/judge OUT=$OUT/rl STEPS=$RL_STEPS LR=$RL_LR SEED=$SEED \
        bash verl/examples/grpo_trainer/run_streaming_8p.sh
}
step rl train_rl

step summaries python eval/gen_preference.py --out "$OUT/eval" --data world_films="$OUT/data/test_films_upi.jsonl" --max_tokens 128 \
    --max_model_len 2048 --concurrency 64 --model untrained="$OUT/models/base" sft="$OUT/models/sft" sft+rl="$OUT/rl/model"
step scores python eval/evaluate.py --out "$OUT/eval" --data world_films="$OUT/data/test_films_upi.jsonl" --bounds "$OUT/data/world.json" \
    --max_model_len 2048 --concurrency 64 --policies untrained sft sft+rl --cues random \
    --judge judge="$OUT/models/judge" judge2="$OUT/models/judge2"

draw() {
    python figures/plots.py --results "$OUT/eval/results.json" --rl "$OUT/rl/metrics.jsonl" --out "$OUT/figures"
    cp "$OUT/eval/results.json" "$OUT/eval/report.md" "$OUT/"
}
step figures draw
