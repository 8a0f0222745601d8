#!/usr/bin/env bash
# Write preference summaries from the full history for all benchmarks of a folder.
#
#   bash gen_preference.sh                                        Qwen/Qwen3-8B on the published benchmark files
#   MODEL=ours=../outputs/rl/model DATA=../benchmarks bash gen_preference.sh
#   MODEL="ours=../outputs/rl/model qwen=Qwen/Qwen3-8B" BENCHMARKS="mind amazon" bash gen_preference.sh --limit 200
#
# Lists are separated by blanks or, where a path has blanks, one item a line. --check looks at everything and starts
# nothing. Interrupted? Run the same command again. Further options go to gen_preference.py (its --help lists them).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

MODEL=${MODEL:-Qwen/Qwen3-8B}       # policies, NAME=TARGET; TARGET: folder, hub id[@revision] or endpoint URL
DATA=${DATA:-VanillaH1/AlignXplorePlus-Benchmark}    # NAME=FILE ..., a folder of NAME_upi.jsonl, or a hub data set
BENCHMARKS=${BENCHMARKS:-}          # names, e.g. "mind amazon"; default: all that are there
OUT=${OUT:-../outputs/eval}         # folder of all summaries and scores
SETTINGS=${SETTINGS:-full}          # full, streaming or both
PYTHON=${PYTHON:-python}

use_library
lists --model "$MODEL" --data "$DATA" --benchmarks "$BENCHMARKS" --settings "$SETTINGS"
exec "$PYTHON" "$ROOT/eval/gen_preference.py" "${LISTS[@]}" --out "$OUT" "$@"
