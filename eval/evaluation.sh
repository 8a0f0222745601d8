#!/usr/bin/env bash
# Score all summaries under OUT with one or several downstream models, and print the tables.
#
#   bash evaluation.sh                                            downstream model Qwen/Qwen3-8B, protocols choice and paper
#   JUDGE="qwen3=Qwen/Qwen3-8B qwen2.5=Qwen/Qwen2.5-7B-Instruct" bash evaluation.sh --limit 200
#
# Interrupted? Run the same command again. Further options go to evaluate.py (its --help lists them).
set -euo pipefail

JUDGE=${JUDGE:-Qwen/Qwen3-8B}                            # downstream models, NAME=TARGET
DATA=${DATA:-VanillaH1/AlignXplorePlus-Benchmark}        # as for gen_preference.sh
BENCHMARKS=${BENCHMARKS:-}
OUT=${OUT:-../outputs/eval}
PROTOCOL=${PROTOCOL:-choice paper}                       # choice: both orders, probabilities; paper: as published
PYTHON=${PYTHON:-python}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
export PYTHONPATH=$HERE/..${PYTHONPATH:+:$PYTHONPATH}

exec "$PYTHON" "$HERE/evaluate.py" --judge $JUDGE --data $DATA ${BENCHMARKS:+--benchmarks $BENCHMARKS} \
    --protocol $PROTOCOL --out "$OUT" "$@"
