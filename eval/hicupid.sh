#!/usr/bin/env bash
# HiCUPID's own score of all summaries under OUT: each downstream model writes answers, the official evaluator rates them.
#
#   DATA=hicupid=../hicupid_upi.jsonl bash hicupid.sh                 downstream model Qwen/Qwen3-8B
#   EVALUATOR="gpt4o=https://api.openai.com/v1@gpt-4o-2024-11-20" DATA=... bash hicupid.sh --api_key_env gpt4o=OPENAI_API_KEY
#
# The benchmark file comes from: python -m alignxplore.datasets build hicupid --raw DIR --out hicupid_upi.jsonl
# The variables are those of evaluation.sh (JUDGE, DATA, OUT, PYTHON) and EVALUATOR; results go to OUT/hicupid. In the
# tables with all other benchmarks the score stands anyway, where these hold HiCUPID.
set -euo pipefail

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
EVALUATOR=${EVALUATOR:-12kimih/Llama-3.2-3B-HiCUPID}
OUT=${OUT:-../outputs/eval}
BENCHMARKS=hicupid PROTOCOL=paper OUT=$OUT exec bash "$(dirname "${BASH_SOURCE[0]}")/evaluation.sh" \
    --evaluator "$EVALUATOR" --report "$OUT/hicupid" "$@"
