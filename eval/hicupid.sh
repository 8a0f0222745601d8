#!/usr/bin/env bash
# HiCUPID's own score of all summaries under OUT: each downstream model writes answers, the official evaluator rates
# them.
#
#   DATA=hicupid=../hicupid_upi.jsonl bash hicupid.sh                 downstream model Qwen/Qwen3-8B
#   EVALUATOR="gpt4o=https://api.openai.com/v1@gpt-4o-2024-11-20" bash hicupid.sh --api_key_env gpt4o=OPENAI_API_KEY
#
# The benchmark file comes from: python -m alignxplore.datasets build hicupid --raw DIR --out hicupid_upi.jsonl
# Further variables and options are those of evaluation.sh (JUDGE, DATA, PYTHON; --check); results go to OUT/hicupid.
# In the tables with all other benchmarks the score stands anyway, where these hold HiCUPID.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

EVALUATOR=${EVALUATOR:-12kimih/Llama-3.2-3B-HiCUPID}
OUT=${OUT:-../outputs/eval}         # folder of all summaries and scores

export OUT BENCHMARKS=hicupid PROTOCOL=paper
exec bash "$ROOT/eval/evaluation.sh" --evaluator "$EVALUATOR" --report "$OUT/hicupid" "$@"
