#!/usr/bin/env bash
# Serve the judges of a training run on this machine, data parallel, and print the JUDGES= line that
# run_streaming_8p.sh takes.
#
#   bash verl/serve_judge.sh                                             Qwen3-8B, one copy on each GPU of this machine
#   MODELS="qwen=Qwen/Qwen3-8B small=Qwen/Qwen2.5-7B-Instruct" bash verl/serve_judge.sh      two judges share the GPUs
#   HOST=192.0.2.7 bash verl/serve_judge.sh               reachable by the nodes that train, at this machine's address
#   DEVICE=cpu MODELS=judge=runs/quickstart/models/judge bash verl/serve_judge.sh            a tiny judge on a CPU
#   bash verl/serve_judge.sh --check                                      look at models, GPUs and ports, start nothing
#
# Each judge is one `vllm serve` with its own URL; vLLM spreads the requests over its copies. The line is printed once
# all of them answer their health check; then this script stays until it gets Ctrl-C or a TERM signal, or until a
# server ends (exit code 1). It ends what it started and nothing else. Further arguments go to every `vllm serve`. A
# key: set VLLM_API_KEY here, and train with streaming.judge_api_key_env=VLLM_API_KEY. Every path but /health asks for
# it (vLLM by itself leaves POST /invocations open). HOST=0.0.0.0 without a key is refused.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

MODELS=${MODELS:-qwen3=Qwen/Qwen3-8B}  # "name=folder or hub id ...", or one a line; the reward is their mean
HOST=${HOST:-127.0.0.1}             # address to listen at: this machine's in the cluster, for other nodes
ADVERTISE=${ADVERTISE:-}            # address in the JUDGES= line (default: HOST, or this machine's name for 0.0.0.0)
PORT=${PORT:-8000}                  # of the first judge; the next ones follow
DEVICE=${DEVICE:-cuda}
GPUS=${GPUS:-}                      # how many to use (default: all that CUDA_VISIBLE_DEVICES or nvidia-smi name)
TP=${TP:-1}                         # GPUs of one copy
REPLICAS=${REPLICAS:-}              # copies of each judge (default: what its share of the GPUs holds; CPU: 1)
MAX_MODEL_LEN=${MAX_MODEL_LEN:-}    # longest prompt (default: what the model was made for)
LIMIT=${LIMIT:-900}                 # seconds that a judge may take to come up
LOGS=${LOGS:-$ROOT/outputs/judges}  # what each server says: LOGS/name.log
JUDGES_FILE=${JUDGES_FILE:-}        # also write the line there, for a script that waits for it
PYTHON=${PYTHON:-python}

use_library
exec "$PYTHON" -m alignxplore.serving.judges --models "$MODELS" --host "$HOST" --port "$PORT" --device "$DEVICE" \
    --tp "$TP" --limit "$LIMIT" --logs "$LOGS" --python "$PYTHON" ${ADVERTISE:+--advertise "$ADVERTISE"} \
    ${GPUS:+--gpus "$GPUS"} ${REPLICAS:+--replicas "$REPLICAS"} ${MAX_MODEL_LEN:+--max_model_len "$MAX_MODEL_LEN"} \
    ${JUDGES_FILE:+--judges_file "$JUDGES_FILE"} "$@"
