#!/usr/bin/env bash
# From raw behaviour to a trained policy and to RL rows, in the simulated world: everything that comes before SFT, for
# real.
#
#   bash studies/signal_to_sft.sh                                # after ./quickstart.sh
#   BASE=runs/other OUT=runs/studies/other USERS=120 LIMIT=60 bash studies/signal_to_sft.sh
#
# Takes the models and benchmarks of a finished quick start (BASE) and new users with longer histories, then
#   signal     trains a signal model on their streams and scores every choice; the weak one is a checkpoint
#   synthesis  a teacher (alignxplore.world.oracle, behind an OpenAI-compatible server) writes summaries, the quick
#              start's judge verifies them, users pass or leave: OUT/synthesis/sft.jsonl, funnel.json, funnel.png
#   sft        trains the untrained policy on these rows alone; eval compares it with the quick start's own
#   rl         selects RL rows by signal, checks their overlap with the benchmark, and starts RL upon the SFT model
# Leaves OUT/results.json and OUT/report.md. Interrupted? Run the same command again.
#
# --check prints the steps and starts nothing; --no-install takes the environment that is active now.
# BASE is runs/quickstart, OUT is runs/studies/signal_to_sft unless set. The seed is that of BASE.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/study.bash"

USERS=${USERS:-1200}                # whose behaviour it begins with
LIMIT=${LIMIT:-600}                 # benchmark users
SIGNAL=${SIGNAL:-0.5}               # a tiny model is hardly surer; published: 0.9
EPOCHS=${EPOCHS:-6}                 # of SFT
PORT=${PORT:-8777}                  # of the teacher
RL_STEPS=${RL_STEPS:-2}             # RL updates
RL_LR=${RL_LR:-3e-4}                # their learning rate
source quickstart/steps.bash
source quickstart/training.bash
take_settings "$BASE" SEED
same_settings BASE SEED USERS LIMIT SIGNAL EPOCHS RL_STEPS RL_LR

expect users 3; expect synthesis 500; expect weak 50; expect sft 120; expect selection 8; expect rl 150
expect summaries 230; expect scores 180

synthesis() {  # signal model, its scores, then teacher and judge, by the same script as at full size
    local log=$OUT/logs/oracle.log
    launch python -m alignxplore.world.oracle --port "$PORT" >"$log" 2>&1
    until grep -q '^ready:' "$log"; do
        kill -0 "$launched" 2>/dev/null || { cat "$log"; return 1; }
        sleep 0.2
    done
    show env DATA="$OUT/users.jsonl" OUT="$OUT/synthesis" SIGNAL_MODEL="$BASE/models/base" NPROC=1 \
        SIGNAL_CONFIG=sft/configs/signal_tiny.yaml TEACHER="teacher=http://127.0.0.1:$PORT/v1#$BASE/models/base" \
        JUDGE="judge=$BASE/models/judge" bash sft/synthesize.sh --signal "$SIGNAL" --max_tokens 256 \
        --judge_arguments "--max-model-len 2048" --requests 64 --max_error_rate 0
    stop "$launched"
}
weak() {  # the signal model halfway through its training
    local checkpoints
    mapfile -t checkpoints < <(ls -dv "$OUT"/synthesis/signal_model/checkpoint-*)
    show python sft/signal_model.py score --data "$OUT/users.jsonl" --output "$OUT/weak_scores" \
        --model "${checkpoints[(${#checkpoints[@]} - 1) / 2]}"
}
selection() {
    show python sft/select_rl.py --data "$OUT/users.jsonl" --strong "$OUT/synthesis/signal_scores/scores.jsonl" \
        --weak "$OUT/weak_scores/scores.jsonl" --output "$OUT/rl_train.jsonl" --a 0.5 --b 0.3 &&
        show python sft/overlap.py --train "$OUT/rl_train.jsonl" "$OUT/synthesis/sft.jsonl" \
            --benchmarks "$BASE"/data/test_*_upi.jsonl &&
        rl_parquet "$OUT/rl_train"
}

step users python -m alignxplore.world.long_users --out "$OUT/users.jsonl" --users "$USERS" --seed "$SEED"
step synthesis synthesis
step sft train_sft "$BASE/models/base" "$OUT/synthesis/sft.jsonl" "$OUT/sft" --num_train_epochs "$EPOCHS"
step weak weak
step selection selection
step rl train_rl "$OUT/sft" "$OUT/rl_train.parquet" "$OUT/rl"
step summaries write_summaries "$OUT/eval" untrained="$BASE/models/base" sft="$BASE/models/sft" \
    synthesised="$OUT/sft" --limit "$LIMIT"
step scores score_summaries "$OUT/eval" untrained sft synthesised --limit "$LIMIT"
where_the_time_went
cp "$OUT/eval/results.json" "$OUT/eval/report.md" "$OUT/"
printf '\nresults  %s\nfunnel   %s\n' "$OUT/results.json" "$OUT/synthesis/funnel.png"
