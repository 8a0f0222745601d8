#!/usr/bin/env bash
# The cross-model table, one command: the same summaries read by other downstream models (published:
# Qwen2.5-7B-Instruct, GPT-OSS-20B).
#
#   MODEL=ours=../outputs/rl/model bash cross_model.sh
#   JUDGE="a=org/model b=http://host:8000/v1" EVALUATE="--judge_format b=think" bash cross_model.sh
#
# Variables and options are those of main_table.sh. With the same OUT the summaries that main_table.sh wrote are used,
# and not written again. The tables are in OUT/tables/cross_model.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

export TABLE=${TABLE:-cross_model}
if [[ -z ${JUDGE:-} ]]; then
    evaluate=() && items evaluate "${EVALUATE:-}"
    EVALUATE=$(lines --judge_format gpt-oss-20b=harmony "${evaluate[@]}")    # gpt-oss reasons before it answers
    export EVALUATE JUDGE="Qwen/Qwen2.5-7B-Instruct openai/gpt-oss-20b"
fi
exec bash "$ROOT/eval/main_table.sh" "$@"
