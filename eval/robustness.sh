#!/usr/bin/env bash
# The robustness table, one command: a benchmark disturbed in several ways (noise, order, no negatives, injected text;
# with MIX another domain in between), summaries written and scored anew for each, the change against the undisturbed
# benchmark with its interval; injected text under the default and the hardened prompt set side by side.
#
#   DATA=mind=mind_upi.jsonl MODEL=ours=../outputs/rl/model LIMIT=500 bash robustness.sh
#   DATA=world_films=films.jsonl MIX=world_news=news.jsonl KINDS="swapped:0.2 injected_order:0.5" bash robustness.sh
#
# JUDGE, PROTOCOL and further options as for main_table.sh, --check too, which starts nothing. perturb.py --help
# explains the KINDS. The tables are in OUT: robustness.md, table_*.tex, table_*.csv; OUT/default and OUT/hardened hold
# the whole reports.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

MODEL=${MODEL:-ours=Qwen/Qwen3-8B}  # one policy, NAME=TARGET
DATA=${DATA:-VanillaH1/AlignXplorePlus-Benchmark}    # as for gen_preference.sh
BENCHMARKS=${BENCHMARKS:-}          # names, e.g. "mind amazon"; default: all that are there
KINDS=${KINDS:-}                    # default: see perturb.py
MIX=${MIX:-}                        # benchmark that is mixed in: NAME=FILE, a folder or a hub data set of one
LIMIT=${LIMIT:-}                    # users per benchmark, a fixed sample by content hash
GENERATE=${GENERATE:-}              # options for gen_preference.py alone, or one word a line
EVALUATE=${EVALUATE:-}              # options for evaluate.py alone
OUT=${OUT:-../outputs/robustness}
SETTINGS=${SETTINGS:-full streaming}
PYTHON=${PYTHON:-python}
export OUT SETTINGS
models=() generate=() evaluate=()
items models "$MODEL"
items generate "$GENERATE"
items evaluate "$EVALUATE"
[[ ${#models[@]} == 1 && $MODEL == *=* ]] || refuse "MODEL is one policy, as NAME=TARGET"
[[ -z $MIX ]] || ! missing "${MIX#*=}" || refuse "MIX=$MIX: no such file"
use_library

# What is wrong there is better known before hours of writing.
bash "$ROOT/eval/evaluation.sh" --check "${evaluate[@]}" ${LIMIT:+--limit "$LIMIT"} "$@"
lists --data "$DATA" --benchmarks "$BENCHMARKS" --kinds "$KINDS"
check=()
if has --check "$@"; then check=(--check); fi
"$PYTHON" "$ROOT/eval/perturb.py" "${LISTS[@]}" --out "$OUT/data" ${MIX:+--mix "$MIX"} ${LIMIT:+--limit "$LIMIT"} \
    "${check[@]}"
if has --check "$@"; then exec bash "$ROOT/eval/gen_preference.sh" "${generate[@]}" ${LIMIT:+--limit "$LIMIT"} "$@"; fi

name=${models[0]%%=*} target=${models[0]#*=}
export DATA=$OUT/data
score() {  # POLICY PROMPT_SET BENCHMARKS [OPTION...]
    export MODEL="$1=$target"$'\n' BENCHMARKS=$3
    bash "$ROOT/eval/gen_preference.sh" --prompt_set "$2" "${generate[@]}" "${@:4}"
    bash "$ROOT/eval/evaluation.sh" --prompt_set "$2" --policies "$1" --other_user none --report "$OUT/$2" \
        "${evaluate[@]}" "${@:4}"
}
score "$name" default "$(<"$OUT/data/copies.txt")" "$@"
injected=$(grep -E '~injected|^[^~]*$' "$OUT/data/copies.txt")   # and the undisturbed ones
if [[ $injected == *~injected* ]]; then score "$name-hardened" hardened "$injected" "$@"; fi
exec "$PYTHON" "$ROOT/eval/robustness.py" --out "$OUT"
