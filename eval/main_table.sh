#!/usr/bin/env bash
# The main table, one command: summaries from the full history and as a stream, scored by the downstream model. The
# published rows and the baselines that never read the history stand beside them.
#
#   bash main_table.sh                                             Qwen/Qwen3-8B on the published benchmark files
#   MODEL="ours=../outputs/rl/model qwen3-8b=Qwen/Qwen3-8B" EVALUATE="--published ours=AlignXplore+" bash main_table.sh
#   MODEL=ours=../outputs/rl/model GENERATE="--seeds 0 1 2" bash main_table.sh --limit 200
#
# MODEL, JUDGE, DATA, BENCHMARKS and PROTOCOL are those of gen_preference.sh and evaluation.sh, whose steps these are.
# Options on the command line go to both, --check too, which starts nothing. The tables are in OUT/tables/main:
# report.md, report.html, results.csv, table_*.tex. Interrupted? Run the same command again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

OUT=${OUT:-../outputs/eval}         # folder of all summaries and scores
SETTINGS=${SETTINGS:-full streaming}
TABLE=${TABLE:-main}                # the tables are in OUT/tables/TABLE
GENERATE=${GENERATE:-}              # options for gen_preference.py alone, e.g. --seeds 0 1 2, or one word a line
EVALUATE=${EVALUATE:-}              # options for evaluate.py alone, e.g. --published ours=AlignXplore+
export OUT SETTINGS
generate=() evaluate=()
items generate "$GENERATE"
items evaluate "$EVALUATE"

# What is wrong there is better known before hours of writing.
bash "$ROOT/eval/evaluation.sh" --check "${evaluate[@]}" "$@"
bash "$ROOT/eval/gen_preference.sh" "${generate[@]}" "$@"
has --check "$@" || exec bash "$ROOT/eval/evaluation.sh" --report "$OUT/tables/$TABLE" "${evaluate[@]}" "$@"
