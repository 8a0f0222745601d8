#!/usr/bin/env bash
# Make or reuse the environment, then run all tests: unit tests first, then the whole path with real vLLM, Ray, verl,
# TRL.
#
#   ./test.sh                     everything (no GPU needed): about 45 minutes on two cores once installed
#   ./test.sh --fast              without the tests marked slow: about ten minutes once installed
#   ./test.sh --kill              real runs killed at 20 moments of each stage, and continued: see RELIABILITY.md
#   ./test.sh --gpu               a smoke run of the whole path on one GPU: 40 GB, 8 to 15 minutes, not measured. The
#                                 last line is JSON, also where a step failed or Ctrl-C ended it. 2: there is no GPU.
#                                 --rehearse: the same steps on a CPU, tiny.
#                                 With --check it prints the steps, where there is a GPU
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

smoke() {  # ARGUMENT...: the steps of alignxplore/quickstart/card.py, in the environment of the device
    local word words=()
    for word in "$@"; do [[ $word == --gpu ]] || words+=("$word"); done
    if has --rehearse "$@"; then
        DEVICE=cpu CUDA_VISIBLE_DEVICES=
        export CUDA_VISIBLE_DEVICES
    elif [[ $(_detect_device) == gpu ]]; then
        DEVICE=gpu
    else
        refuse "there is no GPU here (nvidia-smi names none), so nothing was run; --gpu --rehearse runs the same" \
            "steps on a CPU"
    fi
    become_python_for "$DEVICE" alignxplore.quickstart.card "${words[@]}"
}
! has --gpu "$@" || smoke "$@"

setup=()
arguments=(-n 2 --dist loadfile --no-loadscope-reorder)  # a file's servers and runs are started once
while (($#)); do
    case $1 in
        --fast) arguments+=(-m "not slow" -n 3 --dist worksteal) ;;  # three, because many of them wait
        --kill) arguments+=(-m kill -n 0) KILLS=${KILLS:-20} TIME_LIMIT=86400 ;;
        --no-install) setup=(--no-install) ;;
        --check) prepare_environment --check; exit ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

CDPATH="" cd "$ROOT"
prepare_environment "${setup[@]}"

[[ $DEVICE == cpu ]] && export CUDA_VISIBLE_DEVICES=
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

[[ -z ${KILLS:-} ]] || export KILLS
export TIME_LIMIT
exec python -m tests "${arguments[@]}"
