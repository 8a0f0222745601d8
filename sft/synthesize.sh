#!/usr/bin/env bash
# Data synthesis, end to end: signal model → scores → SFT rows. Each step goes on where it was stopped.
#
#   DATA=train_users.jsonl OUT=synthesis bash synthesize.sh
#   TEACHER=teacher=http://host:8000/v1 bash synthesize.sh --max_tokens 2048
#   TEACHER="teacher=http://a:8000/v1 http://b:8000/v1" bash synthesize.sh      two servers of one teacher
#   NNODES=2 NODE_RANK=$R MASTER_ADDR=$HOST OUT=/shared/synthesis bash synthesize.sh      start it on each node
#   DATA=train_users.jsonl bash synthesize.sh --check     look at everything that is there, start nothing
#
# Further variables are those of sft.sh (NPROC, MASTER_ADDR, ...; the port after MASTER_PORT is used too). The signal
# model is trained on all nodes, then node 0 goes on by itself: it scores on its NPROC GPUs. Writes OUT/sft.jsonl, the
# rows for prepare_dataset.py, and OUT/funnel.json. Options: python synthesize.py --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

DATA=${DATA:-train_users.jsonl}     # users, one a line
SIGNAL_DATA=${SIGNAL_DATA:-$DATA}   # users whose choices the signal model learns from
OUT=${OUT:-synthesis}               # output folder
SIGNAL_MODEL=${SIGNAL_MODEL:-Qwen/Qwen3-1.7B}    # trained to foresee choices
SIGNAL_CONFIG=${SIGNAL_CONFIG:-$ROOT/sft/configs/signal_qwen3_1p7b.yaml}    # YAML of its training
TEACHER=${TEACHER:-teacher=Qwen/Qwen3-32B}    # NAME=folder, Hub id or URL; writes summaries
JUDGE=${JUDGE:-}                    # the same for the model that verifies them (default: the teacher itself)
DEFAULT_QUERY=${DEFAULT_QUERY:-}    # stands in for null queries (default: that of the data set DATA is named after)
NNODES=${NNODES:-1}                 # nodes that train the signal model; all else is done by node 0
NODE_RANK=${NODE_RANK:-0}           # this node's number
PYTHON=${PYTHON:-python}

use_library
query=() torchrun=(-m alignxplore.torchrun) longest='' length=()
[[ -z $DEFAULT_QUERY ]] || query=(--default_query "$DEFAULT_QUERY")
if [[ -f $SIGNAL_CONFIG ]]; then    # streams are cut to what is trained on: longer rows would be left out whole
    longest=$(sed -nE 's/^max_length *: *([0-9_]+).*/\1/p' "$SIGNAL_CONFIG")
fi
[[ -z $longest ]] || length=(--max_length "$longest")
signal_model=$ROOT/sft/signal_model.py scores=$OUT/signal_scores/scores.jsonl
prepare=("$signal_model" prepare --data "$SIGNAL_DATA" --model "$SIGNAL_MODEL" --output "$OUT/signal_set"
         "${length[@]}" "${query[@]}")
train=("$ROOT/sft/sft.sh" --config "$SIGNAL_CONFIG" --model_name_or_path "$SIGNAL_MODEL" --train_data "$OUT/signal_set"
       --output_dir "$OUT/signal_model")
score=("$signal_model" score --data "$DATA" --model "$OUT/signal_model" --output "$OUT/signal_scores"
       "${length[@]}" "${query[@]}")
synthesize=("$ROOT/sft/synthesize.py" --data "$DATA" --output "$OUT" --teacher "$TEACHER"
            ${JUDGE:+--judge "$JUDGE"} "${query[@]}" "$@")
scored=("${synthesize[0]}" --scores "$scores" "${synthesize[@]:1}")

if has --check "$@"; then           # each step as far as those before it have come
    for file in "$DATA" "$SIGNAL_DATA" "$SIGNAL_CONFIG"; do [[ -f $file ]] || refuse "$file: no such file"; done
    "$PYTHON" "${prepare[@]}" --check
    if [[ -d $OUT/signal_set ]]; then bash "${train[@]}" --check; else echo "no $OUT/signal_set yet, to train on"; fi
    if [[ -f $OUT/signal_model/summary.json ]]; then "$PYTHON" "${score[@]}" --check; fi
    if [[ -f $scores ]]; then "$PYTHON" "${scored[@]}"; else echo "no $scores yet, to synthesise from"; fi
    exit
fi

# Users of whom none can give rows, or options that cannot be meant, are refused before a model is trained for them.
"$PYTHON" "${synthesize[@]}" --check >/dev/null
if ((NNODES > 1)); then             # node 0 prepares the set for all; the others wait for it, and fail if it does
    prepare=("${torchrun[@]}" --nnodes "$NNODES" --node_rank "$NODE_RANK" --master_addr "${MASTER_ADDR:-127.0.0.1}"
             --master_port $((${MASTER_PORT:-29500} + 1))    # a port of its own: sft.sh comes right after it
             --nproc_per_node 1 "${prepare[@]}")
fi
"$PYTHON" "${prepare[@]}"
NNODES=$NNODES NODE_RANK=$NODE_RANK bash "${train[@]}"
((NODE_RANK == 0)) || exit 0
NPROC=${NPROC:-$("$PYTHON" -c 'import torch; print(max(1, torch.accelerator.device_count()))')}
"$PYTHON" "${torchrun[@]}" --standalone --nproc_per_node "$NPROC" "${score[@]}"
"$PYTHON" "${scored[@]}"
