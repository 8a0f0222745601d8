#!/usr/bin/env bash
# Score all summaries under OUT with one or several downstream models, and print the tables.
#
#   bash evaluation.sh                                       downstream model Qwen/Qwen3-8B, protocols choice and paper
#   JUDGE="qwen3=Qwen/Qwen3-8B qwen2.5=Qwen/Qwen2.5-7B-Instruct" bash evaluation.sh --limit 200
#
# Lists are separated by blanks or, where a path has blanks, one item a line. --check looks at everything and starts
# nothing. Interrupted? Run the same command again. Further options go to evaluate.py (its --help lists them).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

JUDGE=${JUDGE:-Qwen/Qwen3-8B}       # downstream models, NAME=TARGET
DATA=${DATA:-VanillaH1/AlignXplorePlus-Benchmark}    # as for gen_preference.sh
BENCHMARKS=${BENCHMARKS:-}          # names, e.g. "mind amazon"; default: all that are there
OUT=${OUT:-../outputs/eval}         # folder of all summaries and scores
PROTOCOL=${PROTOCOL:-choice paper}  # choice: both orders, probabilities; paper: as published
PYTHON=${PYTHON:-python}

use_library
lists --judge "$JUDGE" --data "$DATA" --benchmarks "$BENCHMARKS" --protocol "$PROTOCOL"
exec "$PYTHON" "$ROOT/eval/evaluate.py" "${LISTS[@]}" --out "$OUT" "$@"
