# shellcheck shell=bash
# How the simulated world's policies are trained and scored: shared by the quick start and the studies, which have
# sourced quickstart/steps.bash and set SEED, RL_STEPS, RL_LR and BASE (the folder with data/ and models/).

train_sft() {  # MODEL ROWS OUT [OPTION...]
    show env OMP_NUM_THREADS=2 bash sft/sft.sh --config sft/configs/tiny.yaml --model_name_or_path "$1" \
        --train_data "$2" --output_dir "$3" --seed "$SEED" "${@:4}"
}

rl_parquet() {  # FILE...: FILE.jsonl → FILE.parquet
    local file
    for file in "$@"; do
        show python verl/examples/data_preprocess/upi_streaming_dataset.py --data "$file.jsonl" \
            --out "$file.parquet" || return
    done
}

judge_url=''
serve_judge() { [[ -n $judge_url ]] || serve judge_url "$BASE/models/judge" judge; }
train_rl() {  # MODEL ROWS OUT [OPTION...]: with a judge server of its own, unless one was started before the step
    serve_judge
    show env PRESET=tiny MODEL="$1" TRAIN="$2" VAL="$BASE/data/rl_val.parquet" JUDGES="judge=$judge_url" \
        JUDGE_TOKENIZER="$BASE/models/judge" OUT="$3" STEPS="$RL_STEPS" LR="$RL_LR" SEED="$SEED" \
        bash verl/examples/grpo_trainer/run_streaming_8p.sh "${@:4}"
}

write_summaries() {  # OUT NAME=MODEL... [OPTION...]
    show python eval/gen_preference.py --out "$1" --data world_films="$BASE/data/test_films_upi.jsonl" \
        --max_tokens 128 --max_model_len 2048 --concurrency 64 --max_error_rate 0 --model "${@:2}"
}

score_summaries() {  # OUT NAME... [OPTION...]
    show python eval/evaluate.py --out "$1" --data world_films="$BASE/data/test_films_upi.jsonl" \
        --bounds "$BASE/data/world.json" --max_model_len 2048 --concurrency 64 --max_error_rate 0 --cues random \
        --judge judge="$BASE/models/judge" judge2="$BASE/models/judge2" --policies "${@:2}"
}
