#!/usr/bin/env bash
# The robustness table, one command: a benchmark disturbed in several ways (noise, order, no negatives, injected text; with MIX another
# domain in between), summaries written and scored anew for each, the change against the undisturbed benchmark with its interval;
# injected text under the default and the hardened prompt set side by side.
#
#   DATA=mind=mind_upi.jsonl MODEL=ours=../outputs/rl/model LIMIT=500 bash robustness.sh
#   DATA=world_films=films.jsonl MIX=world_news=news.jsonl KINDS="swapped:0.2 injected_order:0.5" bash robustness.sh
#
# MODEL is one policy; JUDGE, PROTOCOL, SETTINGS and further options as for main_table.sh. perturb.py --help explains the KINDS.
# The tables are in OUT: robustness.md, table_*.tex, table_*.csv; OUT/default and OUT/hardened hold the whole reports.
set -euo pipefail

MODEL=${MODEL:-ours=Qwen/Qwen3-8B}                       # NAME=TARGET
DATA=${DATA:-VanillaH1/AlignXplorePlus-Benchmark}
BENCHMARKS=${BENCHMARKS:-}
KINDS=${KINDS:-}                                         # default: see perturb.py
MIX=${MIX:-}                                             # NAME=FILE of the benchmark that is mixed in
LIMIT=${LIMIT:-}                                         # users per benchmark, a fixed sample by content hash
GENERATE=${GENERATE:-} EVALUATE=${EVALUATE:-}            # options for one of the two steps alone
PYTHON=${PYTHON:-python}
export OUT=${OUT:-../outputs/robustness} SETTINGS=${SETTINGS:-full streaming}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
[[ $MODEL == *=* && $MODEL != *" "* ]] || { echo "robustness.sh: MODEL is one policy, as NAME=TARGET" >&2; exit 2; }
export PYTHONPATH=$HERE/..${PYTHONPATH:+:$PYTHONPATH}

bash "$HERE/evaluation.sh" --check $EVALUATE "$@"       # what is wrong there is better known before hours of writing
"$PYTHON" "$HERE/perturb.py" --data $DATA --out "$OUT/data" ${BENCHMARKS:+--benchmarks $BENCHMARKS} ${KINDS:+--kinds $KINDS} \
    ${MIX:+--mix "$MIX"} ${LIMIT:+--limit "$LIMIT"}

name=${MODEL%%=*} target=${MODEL#*=}
score() {  # POLICY PROMPT_SET BENCHMARKS [OPTION...]
    MODEL="$1=$target" DATA=$OUT/data BENCHMARKS=$3 bash "$HERE/gen_preference.sh" --prompt_set "$2" $GENERATE "${@:4}"
    DATA=$OUT/data BENCHMARKS=$3 bash "$HERE/evaluation.sh" --prompt_set "$2" --policies "$1" --other_user none --report "$OUT/$2" \
        $EVALUATE "${@:4}"
}
score "$name" default "$(<"$OUT/data/copies.txt")" "$@"
injected=$(grep -E '~injected|^[^~]*$' "$OUT/data/copies.txt")   # and the undisturbed ones
if [[ $injected == *~injected* ]]; then score "$name-hardened" hardened "$(echo $injected)" "$@"; fi
exec "$PYTHON" "$HERE/robustness.py" --out "$OUT"
