# Steps of ./quickstart.sh on the simulated world; sourced by it (OUT, sizes and the functions step, serve, expect come from there).

expect world 15; expect blank 10; expect lessons 170; expect sft 110; expect rl_data 4; expect rl 480
expect summaries 200; expect scores 260; expect figures 6

step world python -m alignxplore.world --out "$OUT/data" --seed "$SEED" --train-users "$TRAIN_USERS" --val-users "$VAL_USERS" \
    --test-users "$TEST_USERS" --sft-users "$SFT_USERS" --judge-rows "$JUDGE_ROWS" --reader-rows "$READER_ROWS"
step blank python -m alignxplore.tiny --out "$OUT/models/blank" --seed "$SEED"

lesson() { python -m alignxplore.tiny_training --base "$OUT/models/blank" --data "$OUT/data/$1.jsonl" --out "$OUT/models/$2" --seed "$3"; }
lessons() {  # two at once, one core each; the second judge has its own seed and data and is never used as reward
    lesson judge judge $((SEED + 10)) &
    local judge=$!
    lesson reader base "$SEED" && lesson judge2 judge2 $((SEED + 20))
    wait "$judge"
}
step lessons lessons

export OMP_NUM_THREADS=2
step sft bash sft/sft.sh --config sft/configs/tiny.yaml --model_name_or_path "$OUT/models/base" --train_data "$OUT/data/sft.jsonl" \
    --output_dir "$OUT/models/sft" --seed "$SEED" $SFT_OPTIONS
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
        bash verl/examples/grpo_trainer/run_streaming_8p.sh streaming.tolerance.float32.max=null +streaming.tolerance.float32.mean=2e-3
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
