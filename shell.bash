# shellcheck shell=bash
# What the shell scripts of this repository share; they source it. It sets ROOT, the repository.
#
# A list ("name=target name=target", or options for one step) is one variable: separated by blanks or, where a value
# has blanks, one item a line (a newline behind a single one). A value that as a whole, or behind "name=", is an
# existing path is one item.

ROOT=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# A "~/" that was left as it was (OUT="~/runs") is the home folder: one called "~" would be made. `items` and the
# commands read that behind a name.
while read -r _name; do
    [[ ! $_name =~ ^[A-Z_]+$ || ${!_name:-} != \~/* ]] || printf -v "$_name" '%s' ~/"${!_name:2}"
done < <(compgen -e)

refuse() { echo "${0##*/}: $*" >&2; exit 2; }

has() {  # WORD WORD...: is the first one among the others, alone or as WORD=VALUE?
    local word
    for word in "${@:2}"; do [[ $word != "$1" && $word != "$1="* ]] || return 0; done
    return 1
}

help_if_asked() {  # ARGUMENT...: with --help or -h among them, print what the running script says of itself, and end
    has --help "$@" || has -h "$@" || return 0
    local line variables='' assigned='^([A-Z_]+)=\$\{([A-Z_]+):-(.*)\} *(# *(.*))?$'
    while IFS= read -r line && [[ $line == '#'* ]]; do
        [[ $line == '#!'* || $line == '#SBATCH'* ]] || { line=${line#'#'}; printf '%s\n' "${line# }"; }
    done <"$0"
    while IFS= read -r line; do  # NAME=${NAME:-default}  # what it is
        [[ $line =~ $assigned && ${BASH_REMATCH[1]} == "${BASH_REMATCH[2]}" ]] || continue
        printf -v line '  %-44s %s' "${BASH_REMATCH[1]}=${BASH_REMATCH[3]}" "${BASH_REMATCH[5]}"
        variables+=${line%"${line##*[! ]}"}$'\n'
    done <"$0"
    [[ -z $variables ]] || printf '\nVariables and their defaults:\n%s' "$variables"
    exit 0
}

items() {  # ARRAY VALUE: the items of a list
    local -n _items=$1
    local _line _before _i _home=~
    if [[ -e ${2/#\~\//"$_home/"} || ($2 =~ ^[^=[:space:]]+=(.+)$ && -e ${BASH_REMATCH[1]/#\~\//"$_home/"}) ]]; then
        _items=("$2")
    elif [[ $2 == *$'\n'* ]]; then
        _items=()
        while read -r _line; do [[ -z $_line ]] || _items+=("$_line"); done <<<"$2"
    else
        read -ra _items <<<"$2"
    fi
    for _i in "${!_items[@]}"; do
        _items[_i]=${_items[_i]/#\~\//"$_home/"}
        for _before in '=' '#'; do _items[_i]=${_items[_i]//"$_before~/"/"$_before$_home/"}; done
    done
}

lists() {  # FLAG VALUE...: each list behind its flag, in the array LISTS; without items no flag, '' is no flag
    local found
    LISTS=()
    while (($#)); do
        items found "$2"
        ((${#found[@]} == 0)) || LISTS+=(${1:+"$1"} "${found[@]}")
        shift 2
    done
}

lines() { printf '%s\n' "$@"; }  # WORD...: as a list, of two words at least

hydra() {  # KEY VALUE: KEY='VALUE' in Hydra's grammar, where a quote, the backslashes before one and ${ are special
    printf "%s='%s'" "$1" "$(sed -E "s/(\\\\*)'/\\1\\1\\\\'/g; \$ s/(\\\\*)\$/\\1\\1/; s/[$]\\{/\\\\&/g" <<<"$2")"
}

end_jobs() {  # for a trap; asks the shell what it started, as a signal may come before a list of ours has all
    trap - EXIT
    local own
    mapfile -t own < <(jobs -p)
    ((${#own[@]} == 0)) || { kill -TERM "${own[@]}" 2>/dev/null || true; wait "${own[@]}" 2>/dev/null || true; }
}

use_library() { export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}; }

missing() {  # PATH: true for what is meant as a path and is not there; anything else is a Hub id or an address
    [[ ! -e $1 && $1 != *://* && ($1 == [/.~]* || $1 == */*/*) ]]
}
