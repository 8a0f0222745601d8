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
PYTHON=${PYTHON:-python}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*)
    cat <<TEXT
Usage: [VARIABLE=value ...] bash synthesize.sh [--option of synthesize.py ...]

  DATA=train_users.jsonl OUT=synthesis bash synthesize.sh
  TEACHER=teacher=http://host:8000/v1 bash synthesize.sh --max_tokens 2048

Variables: DATA, SIGNAL_DATA, OUT, SIGNAL_MODEL, SIGNAL_CONFIG, TEACHER, JUDGE, PYTHON, and those of sft.sh (NNODES, NPROC, ...).
Writes OUT/sft.jsonl, the rows for prepare_dataset.py, and OUT/funnel.json. Options: python synthesize.py --help
TEXT
    exit 0 ;;
esac

export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
SIGNAL_CONFIG=${SIGNAL_CONFIG:-$HERE/configs/signal_qwen3_1p7b.yaml}
"$PYTHON" "$HERE/signal_model.py" prepare --data "$SIGNAL_DATA" --model "$SIGNAL_MODEL" --output "$OUT/signal_set"
bash "$HERE/sft.sh" --config "$SIGNAL_CONFIG" --model_name_or_path "$SIGNAL_MODEL" --train_data "$OUT/signal_set" --output_dir "$OUT/signal_model"
"$PYTHON" -m accelerate.commands.launch "$HERE/signal_model.py" score --data "$DATA" --model "$OUT/signal_model" --output "$OUT/signal_scores"
"$PYTHON" "$HERE/synthesize.py" --data "$DATA" --scores "$OUT/signal_scores/scores.jsonl" --output "$OUT" --teacher "$TEACHER" \
    ${JUDGE:+--judge "$JUDGE"} "$@"
