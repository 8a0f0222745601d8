#!/usr/bin/env bash
# The cross-task table, one command: summaries of what a user did in one task, judged on the same user's target in
# another, both ways.
#
#   DATA="world_films=films.jsonl world_news=news.jsonl" MODEL=ours=../outputs/rl/model bash cross_task.sh
#   DATA="mind=mind_upi.jsonl student_phd=student_phd_upi.jsonl" LIMIT=1000 bash cross_task.sh
#
# DATA names two record files that share users (the 1,000 users of the published table are not public). Beside A → B
# stands what the summary of B's own history gives for the same users. MODEL, JUDGE, PROTOCOL, GENERATE, EVALUATE and
# further options as for main_table.sh; --check starts nothing. The tables are in OUT/tables/cross_task.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

DATA=${DATA:-}                      # NAME=FILE NAME=FILE, or one a line; a folder or hub data set of two
LIMIT=${LIMIT:-}                    # people, a fixed sample by content hash
OUT=${OUT:-../outputs/cross_task}
SETTINGS=${SETTINGS:-full}
TABLE=${TABLE:-cross_task}
PYTHON=${PYTHON:-python}
data=() && items data "$DATA"
((${#data[@]})) || refuse "DATA names two benchmarks that share users; see --help"
export OUT SETTINGS TABLE DATA

use_library
check=()
if has --check "$@"; then check=(--check); fi
"$PYTHON" "$ROOT/eval/cross_task.py" --data "${data[@]}" --out "$OUT/data" ${LIMIT:+--limit "$LIMIT"} "${check[@]}"
if ! has --check "$@"; then
    BENCHMARKS=$(<"$OUT/data/copies.txt")
    export BENCHMARKS DATA=$OUT/data
fi
exec bash "$ROOT/eval/main_table.sh" "$@"
