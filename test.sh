#!/usr/bin/env bash
# Make or reuse the environment, then run all tests: unit tests first, then the whole path with real vLLM, Ray, verl,
# TRL.
#
#   ./test.sh                     everything (no GPU needed): 21 minutes on two cores once installed
#   ./test.sh --fast              without the tests marked slow: about three minutes once installed
#   ./test.sh --no-install        in the environment that is active now; nothing is installed
#   ./test.sh --check             say whether the environment is complete; nothing is installed or run
#   ./test.sh --fast -k judge -x  what is left goes to pytest
#
# DEVICE, VENV and PYTHON: see ./setup.sh --help (the tests are about CPU runs).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
help_if_asked "$@"

TIME_LIMIT=${TIME_LIMIT:-3300}      # seconds for the tests; at the limit they are ended and the exit code is 124
REAL_SAMPLES_DIR=${REAL_SAMPLES_DIR:-}    # of the real data sets; without them their tests are skipped
DEVICE=${DEVICE:-cpu}
export DEVICE

setup=()
arguments=(-n 2 --dist loadfile --no-loadscope-reorder)  # a file's servers and runs are started once
while (($#)); do
    case $1 in
        --fast) arguments+=(-m "not slow" -n 3 --dist worksteal) ;;  # three, because many of them wait
        --no-install) setup=(--no-install) ;;
        --check) prepare_environment --check; exit ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

cd "$ROOT"
prepare_environment "${setup[@]}"

[[ $DEVICE == cpu ]] && export CUDA_VISIBLE_DEVICES=
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

run=ALIGNXPLORE_TEST_RUN=$$-$RANDOM  # inherited by everything that the tests start, so that it can be found again
ours() { { grep -lzsxF "$run" /proc/[0-9]*/environ || true; } | cut -d/ -f3; }

tests=
finish() {  # the tests' own process group, asked twice; then, by process id, servers with a session of their own
    trap '' INT TERM
    local left='' round
    for round in {0..19}; do
        left=$(ours)
        [[ -n $left ]] || return 0
        case $round in
            0) kill -INT -- "-$tests" 2>/dev/null || true ;;
            10) kill -TERM -- "-$tests" 2>/dev/null || true ;;
        esac
        sleep 0.5
    done
    echo "test.sh: these did not end with the tests and are killed now:" >&2
    ps -o pid=,etimes=,args= -p "$(paste -sd, <<<"$left")" | cut -c1-160 >&2 || true
    xargs kill -KILL <<<"$left" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A background process of a script ignores Ctrl-C unless told otherwise.
env --default-signal=INT "$run" setsid timeout --foreground --signal=INT --kill-after=60 "$TIME_LIMIT" \
    python -m pytest "${arguments[@]}" &
tests=$!
wait "$tests"
