#!/usr/bin/env bash
# The cross-task table, one command: summaries of what a user did in one task, judged on the same user's target in another, both ways.
#
#   DATA="world_films=films.jsonl world_news=news.jsonl" MODEL=ours=../outputs/rl/model bash cross_task.sh
#   DATA="mind=mind_upi.jsonl student_phd=student_phd_upi.jsonl" LIMIT=1000 bash cross_task.sh
#
# DATA names two record files that share users (the 1,000 users of the published table are not public). Beside A → B stands what
# the summary of B's own history gives for the same users. MODEL, JUDGE, OUT, PROTOCOL, GENERATE, EVALUATE and further options as for
# main_table.sh. The tables are in OUT/tables/cross_task.
set -euo pipefail

DATA=${DATA:-}                                           # NAME=FILE NAME=FILE
LIMIT=${LIMIT:-}                                         # people, a fixed sample by content hash
PYTHON=${PYTHON:-python}
export OUT=${OUT:-../outputs/cross_task} SETTINGS=${SETTINGS:-full} TABLE=${TABLE:-cross_task}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
[[ -n $DATA ]] || { echo "cross_task.sh: DATA names two record files that share users; see --help" >&2; exit 2; }
export PYTHONPATH=$HERE/..${PYTHONPATH:+:$PYTHONPATH}

"$PYTHON" "$HERE/cross_task.py" --data $DATA --out "$OUT/data" ${LIMIT:+--limit "$LIMIT"}
BENCHMARKS=$(<"$OUT/data/copies.txt") DATA=$OUT/data exec bash "$HERE/main_table.sh" "$@"
