# shellcheck shell=bash
# How every study begins, sourced by it with its own arguments: --help, --check (print the steps, start nothing),
# --no-install (in the environment that is active now). BASE is a finished quick start, OUT the study's folder, both as
# seen by who calls.

source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
help_if_asked "$@"
setup=() only_check='' study=${0##*/}
for word in "$@"; do
    case $word in
        --no-install) setup=(--no-install) ;;
        --check) only_check=1 ;;
        *) refuse "unknown option '$word'; see --help" ;;
    esac
done
BASE=$(realpath -m "${BASE:-$ROOT/runs/quickstart}") OUT=$(realpath -m "${OUT:-$ROOT/runs/studies/${study%.sh}}")
cd "$ROOT"
[[ -f $BASE/settings && -f $BASE/results.json ]] ||
    { echo "$study: $BASE holds no finished quick start; run ./quickstart.sh first, or set BASE" >&2; exit 1; }

export DEVICE=cpu
[[ -z $only_check ]] || setup=("${setup[@]:---check}")
prepare_environment "${setup[@]}"
