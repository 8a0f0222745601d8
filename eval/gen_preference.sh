#!/usr/bin/env bash
# Write preference summaries from the full history for all benchmarks of a folder.
#
#   bash gen_preference.sh                                        Qwen/Qwen3-8B on the published benchmark files
#   MODEL=ours=../outputs/rl/model DATA=../benchmarks bash gen_preference.sh
#   MODEL="ours=../outputs/rl/model qwen=Qwen/Qwen3-8B" BENCHMARKS="mind student_phd" bash gen_preference.sh --limit 200
#
# Interrupted? Run the same command again. Further options go to gen_preference.py (its --help lists them).
set -euo pipefail

MODEL=${MODEL:-Qwen/Qwen3-8B}                            # policies, NAME=TARGET; TARGET: folder, hub id[@revision] or endpoint URL
DATA=${DATA:-VanillaH1/AlignXplorePlus-Benchmark}        # NAME=FILE ..., a folder with NAME_upi.jsonl files, or a data set on the hub (@revision)
BENCHMARKS=${BENCHMARKS:-}                               # names, e.g. "mind amazon"; default: all that are there
OUT=${OUT:-../outputs/eval}
SETTINGS=${SETTINGS:-full}
PYTHON=${PYTHON:-python}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
export PYTHONPATH=$HERE/..${PYTHONPATH:+:$PYTHONPATH}

exec "$PYTHON" "$HERE/gen_preference.py" --model $MODEL --data $DATA ${BENCHMARKS:+--benchmarks $BENCHMARKS} \
    --settings $SETTINGS --out "$OUT" "$@"
