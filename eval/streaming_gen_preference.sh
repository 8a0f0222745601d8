#!/usr/bin/env bash
# Write preference summaries as a stream: stage by stage, each on top of the summary before it (K = 2 stages as
# published).
#
#   bash streaming_gen_preference.sh
#   MODEL=ours=../outputs/rl/model bash streaming_gen_preference.sh --stages 3
#
# The variables and options are those of gen_preference.sh: MODEL, DATA, BENCHMARKS, OUT; --check.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

SETTINGS=streaming exec bash "$ROOT/eval/gen_preference.sh" "$@"
