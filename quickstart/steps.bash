# Steps of a long pipeline; sourced by quickstart.sh and the studies, which set OUT (a folder) first: printed, timed, logged,
# and skipped when they were finished with the same command. Servers stop with the script, by process id.

mkdir -p "$OUT/logs" "$OUT/steps"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
exec 9>"$OUT/.lock"
flock -n 9 || { echo "${0##*/}: another run is writing into $OUT; wait for it or choose another --out" >&2; exit 1; }

same_settings() {  # NAME...: these variables decide what is made; a folder made with other values is refused, so that runs never mix
    local now name
    now=$(for name in "$@"; do printf '%s=%s\n' "$name" "${!name}"; done)
    if [[ -f $OUT/settings && $(<"$OUT/settings") != "$now" ]]; then
        echo "${0##*/}: $OUT holds a run with other settings (<); now they are (>):" >&2
        diff "$OUT/settings" - <<<"$now" | grep '^[<>]' >&2
        echo "Choose another --out (OUT for a study), or delete that folder." >&2
        exit 1
    fi
    printf '%s\n' "$now" >"$OUT/settings"
}

servers=()
stop() {  # PID...: by process id, only what this script started
    (($#)) || return 0
    local pid
    for pid in "$@"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait "$@" 2>/dev/null || true
}
stop_servers() { stop "${servers[@]}"; servers=(); }
cleanup() { trap - EXIT; stop "${servers[@]}" $(jobs -p); }
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
        echo "${0##*/}: step '$name' failed; its output is in $OUT/logs/$name.log. Mend the cause and run the same command again." >&2
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

where_the_time_went() {
    printf '\nDone in %d min %02d s. Where the time went:\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60))
    local mark
    for mark in $(ls -tr "$OUT"/steps/*); do printf '  %-16s %5d s\n' "$(basename "$mark")" "$(tail -n 1 "$mark")"; done
}
