#!/usr/bin/env bash
# The cross-model table, one command: the same summaries read by other downstream models (published: Qwen2.5-7B-Instruct, GPT-OSS-20B).
#
#   MODEL=ours=../outputs/rl/model bash cross_model.sh
#   JUDGE="a=org/model b=http://host:8000/v1" EVALUATE="--judge_format b=think" bash cross_model.sh
#
# Variables and options are those of main_table.sh. With the same OUT the summaries that main_table.sh wrote are used, and not
# written again. The tables are in OUT/tables/cross_model.
set -euo pipefail

export TABLE=${TABLE:-cross_model}
if [[ -z ${JUDGE:-} ]]; then
    export JUDGE="Qwen/Qwen2.5-7B-Instruct openai/gpt-oss-20b"
    export EVALUATE="--judge_format gpt-oss-20b=harmony ${EVALUATE:-}"   # gpt-oss reasons before it answers
fi
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac

exec bash "$HERE/main_table.sh" "$@"
