#!/usr/bin/env bash
# The main table, one command: summaries from the full history and as a stream, scored by the downstream model, the published
# rows and the baselines that never read the history beside them.
#
#   bash main_table.sh                                             Qwen/Qwen3-8B on the published benchmark files
#   MODEL="ours=../outputs/rl/model qwen3-8b=Qwen/Qwen3-8B" EVALUATE="--published ours=AlignXplore+" bash main_table.sh
#   MODEL=ours=../outputs/rl/model GENERATE="--seeds 0 1 2" bash main_table.sh --limit 200
#
# MODEL, JUDGE, DATA, BENCHMARKS, OUT and PROTOCOL are those of gen_preference.sh and evaluation.sh, whose steps these are. Options on
# the command line go to both; GENERATE and EVALUATE hold options for one of them. The tables are in OUT/tables/main:
# report.md, report.html, results.csv, table_*.tex. Interrupted? Run the same command again.
set -euo pipefail

TABLE=${TABLE:-main}
export OUT=${OUT:-../outputs/eval} SETTINGS=${SETTINGS:-full streaming}
GENERATE=${GENERATE:-}                                   # options for gen_preference.py alone, e.g. --seeds 0 1 2
EVALUATE=${EVALUATE:-}                                   # options for evaluate.py alone, e.g. --published ours=AlignXplore+
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac

bash "$HERE/evaluation.sh" --check $EVALUATE "$@"       # what is wrong there is better known before hours of writing
bash "$HERE/gen_preference.sh" $GENERATE "$@"
exec bash "$HERE/evaluation.sh" --report "$OUT/tables/$TABLE" $EVALUATE "$@"
