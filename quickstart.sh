#!/usr/bin/env bash
# From nothing to the table: make the environment, then run the whole pipeline for real on a CPU with tiny models.
#
#   ./quickstart.sh                 a simulated world: SFT, streaming GRPO, evaluation, table and plots (two cores, 12 GB)
#   ./quickstart.sh --real          real data and a real small model instead: MovieLens latest-small, SmolLM2-135M-Instruct
#   ./quickstart.sh --out DIR       where everything goes (default: runs/quickstart, or runs/real)
#   ./quickstart.sh --no-install    in the environment that is active now; nothing is installed
#
# Interrupted? Run the same command again: what is finished is kept. Every step is an ordinary command of this
# repository; it is printed before it runs, and what it says is in DIR/logs.
#
# Variables (the defaults fit two cores):
#   SEED          1      seed of the world, the models and all draws
#   TEST_USERS    600    users of the test benchmark: what the intervals of the table need
#   TRAIN_USERS   2000   users whose histories RL trains on;   VAL_USERS  64  held-out users during RL
#   SFT_USERS     1500   users behind the SFT rows;            JUDGE_ROWS 12000  rows each judge learns from
#   READER_ROWS   4000   rows from which the untrained policy learns to read, as Qwen3 has before SFT
#   RL_STEPS      40     RL updates;                           RL_LR      3e-4   their learning rate
#   REAL_USERS    24     users of the real benchmark (--real)
#   SFT_OPTIONS          more options of sft/sft.py; NPROC=2 SFT_OPTIONS="--deepspeed sft/configs/zero3.json" trains on two processes
set -euo pipefail

SEED=${SEED:-1} TEST_USERS=${TEST_USERS:-600} TRAIN_USERS=${TRAIN_USERS:-2000} VAL_USERS=${VAL_USERS:-64}
SFT_USERS=${SFT_USERS:-1500} JUDGE_ROWS=${JUDGE_ROWS:-12000} READER_ROWS=${READER_ROWS:-4000} RL_STEPS=${RL_STEPS:-40} RL_LR=${RL_LR:-3e-4}
REAL_USERS=${REAL_USERS:-24} SFT_OPTIONS=${SFT_OPTIONS:-}

kind=world out='' setup=()
while (($#)); do
    case $1 in
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
        --real) kind=real ;;
        --out) out=${2:?--out needs a folder}; shift ;;
        --no-install) setup=(--no-install) ;;
        *) echo "quickstart.sh: unknown option '$1'; see ./quickstart.sh --help" >&2; exit 2 ;;
    esac
    shift
done

cd "$(dirname "${BASH_SOURCE[0]}")"
[[ $kind == world ]] && out=${out:-runs/quickstart}
OUT=$(realpath -m "${out:-runs/$kind}")
export DEVICE=cpu
source ./setup.sh
prepare_environment "${setup[@]}"

mkdir -p "$OUT/logs" "$OUT/steps"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
exec 9>"$OUT/.quickstart.lock"
flock -n 9 || { echo "quickstart.sh: another run is writing into $OUT; wait for it or choose another --out" >&2; exit 1; }

# ---- steps: printed, timed, logged, and skipped when they were finished with the same command --------------------------
servers=()
cleanup() {  # by process id, only what this script started
    trap - EXIT
    local pid started=("${servers[@]}" $(jobs -p))
    for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait "${started[@]}" 2>/dev/null || true
}
trap cleanup EXIT
trap 'echo; echo "interrupted; to go on run the same command again"; exit 130' INT TERM

began=$SECONDS expected_done=0 expected_all=0
declare -A EXPECTED=()   # typical seconds of each step on two cores, for the time left
expect() { EXPECTED[$1]=$2; expected_all=$((expected_all + $2)); }

time_left() {  # seconds: what is still to come, corrected by how this machine has done so far
    local left=$((expected_all - expected_done)) spent=$((SECONDS - began))
    if ((expected_done > 60)); then left=$((left * spent / expected_done)); fi
    printf '%d min %02d s' $((left / 60)) $((left % 60))
}

step() {  # NAME COMMAND...: run once; its marker holds the command, so another command runs again
    local name=$1 started=$SECONDS mark=$OUT/steps/$1
    shift
    local what="$*"
    if [[ -f $mark && $(head -n 1 "$mark") == "$what" ]]; then
        echo "-- $name: done before"
        expected_all=$((expected_all - EXPECTED[$name]))
        return
    fi
    printf '\n== %s (about %d s; %s left in all)\n   %s\n' "$name" "${EXPECTED[$name]}" "$(time_left)" "${what//$OUT/\$OUT}"
    "$@" 9>&- > >(tee -a "$OUT/logs/$name.log") 2>&1 || {
        echo "quickstart.sh: step '$name' failed; its output is in $OUT/logs/$name.log. Mend the cause and run the same command again." >&2
        exit 1
    }
    printf '%s\n%d\n' "$what" $((SECONDS - started)) >"$mark"
    expected_done=$((expected_done + EXPECTED[$name]))
}

serve() {  # VARIABLE MODEL NAME: a server for the rest of this run; its URL goes into VARIABLE
    local log=$OUT/logs/serve_$3.log ready=$OUT/logs/serve_$3.ready waited=0
    : >"$ready"
    python -m alignxplore.serving "$2" --log "$log" --served-model-name "$3" --max-model-len 2048 9>&- >"$ready" 2>&1 &
    local pid=$!
    servers+=("$pid")
    until grep -q '^ready:' "$ready"; do
        kill -0 "$pid" 2>/dev/null || { cat "$ready" >&2; exit 1; }
        if ((++waited % 20 == 0)); then echo "   starting the server of $3 (vLLM takes about a minute): $waited s"; fi
        sleep 1
    done
    printf -v "$1" '%s' "$(sed -n 's/^ready: .* at //p' "$ready")"
}

source "quickstart/$kind.bash"

printf '\nDone in %d min %02d s. Where the time went:\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60))
for mark in $(ls -tr "$OUT"/steps/*); do printf '  %-12s %5d s\n' "$(basename "$mark")" "$(tail -n 1 "$mark")"; done
printf '\nresults  %s\nreport   %s\nfigures  %s\n' "$OUT/results.json" "$OUT/report.md" "$OUT/figures/"
