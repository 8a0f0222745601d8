#!/usr/bin/env bash
# Write preference summaries as a stream: stage by stage, each on top of the summary before it (K = 2 stages as published).
#
#   bash streaming_gen_preference.sh
#   MODEL=ours=../outputs/rl/model bash streaming_gen_preference.sh --stages 3
#
# The variables are those of gen_preference.sh: MODEL, DATA, BENCHMARKS, OUT.
set -euo pipefail

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
SETTINGS=streaming exec bash "$(dirname "${BASH_SOURCE[0]}")/gen_preference.sh" "$@"
