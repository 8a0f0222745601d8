# shellcheck shell=bash
# Steps of a long pipeline; sourced by quickstart.sh and the studies, which set OUT (a folder) first: printed, timed,
# logged, and skipped when they were finished with the same command. (One in which a request failed for good is not
# finished: --max_error_rate 0.) Each runs in a process group of its own, so that the script itself waits and hears
# signals at once; nothing that was started outlives the script, not even one that is killed (kill -9).
# With only_check=1 they are printed only, with the time that they take: nothing is started, nothing written.

only_check=${only_check:-}
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
use_library
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
export DS_ACCELERATOR=cpu  # or DeepSpeed warns that it found nothing else

claim_folder() {  # OUT is ours alone while this runs, and remembers with which code it was made
    local code others  # the commit, where there is one
    mkdir -p "$OUT/logs" "$OUT/steps"
    exec 9>"$OUT/.lock"
    flock -n 9 || {
        echo "${0##*/}: another run is writing into $OUT, or just ending; waiting up to 30 s"
        flock -w 30 9 ||
            { echo "${0##*/}: another run is writing into $OUT; wait for it or choose another --out" >&2; exit 1; }
    }
    code=$([[ ! -e .git ]] || git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || true)
    [[ -n $code ]] || return 0
    grep -qsxF "$code" "$OUT/commits" || echo "$code" >>"$OUT/commits"
    others=$(grep -vxF "$code" "$OUT/commits" | paste -sd ' ' || true)
    [[ -z $others ]] ||
        echo "${0##*/}: warning: $OUT was worked on by other code ($others; now $code); what is finished is kept" >&2
}
[[ -n $only_check ]] || claim_folder

same_settings() {  # NAME...: they decide what is made; a folder made with others is refused, so that runs never mix
    local now name
    now=$(for name in "$@"; do printf '%s=%s\n' "$name" "${!name}"; done)
    if [[ -f $OUT/settings && $(<"$OUT/settings") != "$now" ]]; then
        echo "${0##*/}: $OUT holds a run with other settings (<); now they are (>):" >&2
        diff "$OUT/settings" - <<<"$now" | grep '^[<>]' >&2
        echo "Choose another --out (OUT for a study), or delete that folder." >&2
        exit 1
    fi
    [[ -n $only_check ]] || printf '%s\n' "$now" >"$OUT/settings"
}

take_settings() {  # FOLDER NAME...: these variables get the values that a finished run in FOLDER was made with
    local name
    for name in "${@:2}"; do printf -v "$name" %s "$(sed -n "s/^$name=//p" "$1/settings")"; done
}

run_id=$$-$RANDOM servers=() guards=()   # servers: their process groups; guards: by process group, who looks after it
members() {  # GROUP: who is alive in it, or was started by it and has a session of its own (torchrun, vLLM, Ray)
    ps -e -o pid= -o pgid= -o stat= | awk -v group="$1" '$2 == group && $3 !~ /^Z/ { print $1 }'
    { grep -lzsxF "ALIGNXPLORE_STEP=$run_id-$1" /proc/[0-9]*/environ || true; } | cut -d/ -f3
}
end() {  # GROUP...: asked first, killed after five seconds
    local group round left
    for group in "$@"; do kill -TERM -- "-$group" 2>/dev/null || true; done
    for round in {1..40}; do
        left=$(for group in "$@"; do members "$group"; done)
        [[ -n $left ]] || return 0
        if ((round > 20)); then xargs kill -KILL <<<"$left" 2>/dev/null || true; fi
        sleep 0.25
    done
}
guard() {  # GROUP OWNER: ends the group once its owner is no longer our parent; until then no new run gets the lock
    local parent
    trap '' INT TERM HUP
    exec </dev/null >/dev/null 2>&1
    while read -r _ _ _ parent _ </proc/self/stat && [[ $parent == "$2" ]]; do sleep 1 9>&-; done
    end "$1"
}
launch() {  # COMMAND...: in the background, as a process group, whose number is then in `launched`
    local owner=$BASHPID
    set -m  # a group for each job
    (
        set +m
        export ALIGNXPLORE_STEP=${ALIGNXPLORE_STEP:-$run_id-$BASHPID}
        "$@"
    ) 9>&- &
    launched=$!
    guard "$launched" "$owner" &
    guards[launched]=$!
    disown "$!"
    set +m
}
stop() {  # GROUP...: with everything it started
    (($#)) || return 0
    local group
    end "$@"
    for group in "$@"; do
        wait "$group" 2>/dev/null || true
        kill -KILL "${guards[group]}"
        unset "guards[$group]"
    done
}
stop_servers() { stop "${servers[@]}"; servers=(); }
cleanup() { trap - EXIT; trap '' INT TERM HUP; stop "${!guards[@]}"; }
trap cleanup EXIT
trap 'echo; echo "interrupted; to go on run the same command again"; exit 130' INT TERM HUP

began=$SECONDS expected_done=0 expected_all=0
declare -A EXPECTED=()   # typical seconds of each step on two cores, for the time left
expect() { EXPECTED[$1]=$2; expected_all=$((expected_all + $2)); }

time_left() {  # seconds: what is still to come, corrected by how this machine has done so far
    local left=$((expected_all - expected_done)) spent=$((SECONDS - began))
    if ((expected_done > 60)); then left=$((left * spent / expected_done)); fi
    printf '%d min %02d s' $((left / 60)) $((left % 60))
}

done_before() { [[ -f $OUT/steps/$1 && $(head -n 1 "$OUT/steps/$1") == "${*:2}" ]]; }  # NAME COMMAND...

show() {  # COMMAND...: an ordinary command, printed so that it can be repeated by hand, and run
    printf '   $'
    printf ' %q' "$@"
    echo
    "$@"
}

step() {  # NAME COMMAND...: run once, in a process of its own; its marker holds the command, so another one runs again
    local name=$1 started=$SECONDS mark=$OUT/steps/$1 what="${*:2}"
    if done_before "$@"; then
        echo "-- $name: done before"
        expected_all=$((expected_all - EXPECTED[$name]))
        return
    fi
    if [[ -n $only_check ]]; then echo "-- $name: about ${EXPECTED[$name]} s"; return; fi
    printf '\n== %s (about %d s; %s left in all)\n' "$name" "${EXPECTED[$name]}" "$(time_left)"
    printf '   %s\n' "${what//"$OUT"/\$OUT}"
    launch "${@:2}" </dev/null > >(trap '' INT TERM; exec tee -a "$OUT/logs/$name.log") 2>&1
    local group=$launched status=0
    wait "$group" || status=$?
    stop "$group"
    ((status == 0)) || {
        echo "${0##*/}: step '$name' failed; its output is in $OUT/logs/$name.log." \
             "Mend the cause and run the same command again." >&2
        exit 1
    }
    printf '%s\n%d\n' "$what" $((SECONDS - started)) >"$mark"
    expected_done=$((expected_done + EXPECTED[$name]))
}

serve() {  # VARIABLE MODEL NAME: a server for the rest of the step or, outside of steps, of the run; VARIABLE: its URL
    [[ -z $only_check ]] || return 0
    local log=$OUT/logs/serve_$3.log ready=$OUT/logs/serve_$3.ready waited=0
    : >"$ready"
    launch env -u VLLM_API_KEY python -m alignxplore.serving "$2" --log "$log" --served-model-name "$3" \
        --max-model-len 2048 >"$ready" 2>&1
    local pid=$launched
    servers+=("$pid")
    until grep -q '^ready:' "$ready"; do
        kill -0 "$pid" 2>/dev/null || { cat "$ready" >&2; exit 1; }
        if ((++waited % 20 == 0)); then echo "   starting the server of $3 (vLLM takes about a minute): $waited s"; fi
        sleep 1
    done
    printf -v "$1" '%s' "$(sed -n 's/^ready: .* at //p' "$ready")"
}

where_the_time_went() {  # with only_check the end of the script
    if [[ -n $only_check ]]; then echo "$(time_left) to go, on two cores; nothing was started"; exit; fi
    printf '\nDone in %d min %02d s. Where the time went:\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60))
    local mark
    while IFS= read -r mark; do
        printf '  %-16s %5d s\n' "$mark" "$(tail -n 1 "$OUT/steps/$mark")"
    done < <(ls -tr "$OUT/steps")
}
