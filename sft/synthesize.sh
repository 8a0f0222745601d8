#!/usr/bin/env bash
# Data synthesis, end to end: signal model → scores → SFT rows. Each step goes on where it was stopped.
set -euo pipefail

DATA=${DATA:-train_users.jsonl}                       # users, one a line
SIGNAL_DATA=${SIGNAL_DATA:-$DATA}                     # users whose choices the signal model learns from
OUT=${OUT:-synthesis}                                 # output folder
SIGNAL_MODEL=${SIGNAL_MODEL:-Qwen/Qwen3-1.7B}         # trained to foresee choices
SIGNAL_CONFIG=${SIGNAL_CONFIG:-}                      # YAML for its training (default: configs/signal_qwen3_1p7b.yaml)
TEACHER=${TEACHER:-teacher=Qwen/Qwen3-32B}            # NAME=folder, Hub id or URL; writes summaries
JUDGE=${JUDGE:-}                                      # the same for the model that verifies them (default: the teacher itself)
DEFAULT_QUERY=${DEFAULT_QUERY:-}                      # stands in for null queries (default: that of the data set DATA is named after)
NNODES=${NNODES:-1}                                   # nodes that train the signal model; all else is done by node 0
NODE_RANK=${NODE_RANK:-0}                             # this node's number
PYTHON=${PYTHON:-python}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*)
    cat <<TEXT
Usage: [VARIABLE=value ...] bash synthesize.sh [--option of synthesize.py ...]

  DATA=train_users.jsonl OUT=synthesis bash synthesize.sh
  TEACHER=teacher=http://host:8000/v1 bash synthesize.sh --max_tokens 2048
  NNODES=2 NODE_RANK=\$R MASTER_ADDR=\$HOST OUT=/shared/synthesis bash synthesize.sh      start it on each node

Variables: DATA, SIGNAL_DATA, OUT, SIGNAL_MODEL, SIGNAL_CONFIG, TEACHER, JUDGE, DEFAULT_QUERY, PYTHON, and those of sft.sh (NNODES,
  NODE_RANK, NPROC, ...; the port after MASTER_PORT is used too). The signal model is trained on all nodes, then node 0 goes on by itself:
  it scores on its NPROC GPUs.
Writes OUT/sft.jsonl, the rows for prepare_dataset.py, and OUT/funnel.json. Options: python synthesize.py --help
TEXT
    exit 0 ;;
esac

export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
SIGNAL_CONFIG=${SIGNAL_CONFIG:-$HERE/configs/signal_qwen3_1p7b.yaml}
QUERY=(${DEFAULT_QUERY:+--default_query "$DEFAULT_QUERY"})
if [ "$NNODES" -gt 1 ]; then                           # node 0 prepares the set for all; the others wait for it, and fail if it does
    PREPARE=(-m torch.distributed.run --nnodes "$NNODES" --node_rank "$NODE_RANK" --master_addr "${MASTER_ADDR:-127.0.0.1}"
             --master_port $((${MASTER_PORT:-29500} + 1)) --nproc_per_node 1)    # sft.sh comes right after it: a port of its own
fi
"$PYTHON" ${PREPARE[@]+"${PREPARE[@]}"} "$HERE/signal_model.py" prepare --data "$SIGNAL_DATA" --model "$SIGNAL_MODEL" \
    --output "$OUT/signal_set" ${QUERY[@]+"${QUERY[@]}"}
NNODES=$NNODES NODE_RANK=$NODE_RANK bash "$HERE/sft.sh" --config "$SIGNAL_CONFIG" --model_name_or_path "$SIGNAL_MODEL" \
    --train_data "$OUT/signal_set" --output_dir "$OUT/signal_model"
[ "$NODE_RANK" = 0 ] || exit 0
NPROC=${NPROC:-$("$PYTHON" -c 'import torch; print(max(1, torch.accelerator.device_count()))')}
"$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$NPROC" "$HERE/signal_model.py" score --data "$DATA" \
    --model "$OUT/signal_model" --output "$OUT/signal_scores" ${QUERY[@]+"${QUERY[@]}"}
"$PYTHON" "$HERE/synthesize.py" --data "$DATA" --scores "$OUT/signal_scores/scores.jsonl" --output "$OUT" --teacher "$TEACHER" \
    ${JUDGE:+--judge "$JUDGE"} ${QUERY[@]+"${QUERY[@]}"} "$@"
