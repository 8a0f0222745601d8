#!/usr/bin/env bash
# Serve the judges of a training run on this machine, data parallel, and print the JUDGES= line that
# run_streaming_8p.sh takes.
#
#   bash verl/serve_judge.sh                                             Qwen3-8B, one copy on each GPU of this machine
#   MODELS="qwen=Qwen/Qwen3-8B small=Qwen/Qwen2.5-7B-Instruct" bash verl/serve_judge.sh      two judges share the GPUs
#   HOST=0.0.0.0 bash verl/serve_judge.sh                                 reachable from the nodes that train
#   DEVICE=cpu MODELS=judge=runs/quickstart/models/judge bash verl/serve_judge.sh            a tiny judge on a CPU
#   bash verl/serve_judge.sh --check                                      look at models, GPUs and ports, start nothing
#
# Each judge is one `vllm serve` with its own URL; vLLM spreads the requests over its copies. The line is printed once
# all of them answer their health check; then this script stays until it gets Ctrl-C or a TERM signal, or until a
# server ends (exit code 1). It ends what it started and nothing else. Further arguments go to every `vllm serve`. A
# key: set VLLM_API_KEY here, and train with streaming.judge_api_key_env=VLLM_API_KEY.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

MODELS=${MODELS:-qwen3=Qwen/Qwen3-8B}  # "name=folder or hub id ...", or one a line; the reward is their mean
HOST=${HOST:-127.0.0.1}             # address to listen at; 0.0.0.0 for training on other nodes
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
specs=() arguments=() check=''
for word in "$@"; do if [[ $word == --check ]]; then check=1; else arguments+=("$word"); fi; done
items specs "$MODELS"
if [[ -z $ADVERTISE ]]; then
    if [[ $HOST == 0.0.0.0 ]]; then ADVERTISE=$(hostname); else ADVERTISE=$HOST; fi
fi

devices=() share=0
if [[ $DEVICE == cpu ]]; then
    REPLICAS=${REPLICAS:-1}
else
    if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
        IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES"
    else
        mapfile -t devices < <(nvidia-smi --query-gpu=index --format=csv,noheader)
    fi
    devices=("${devices[@]:0:${GPUS:-${#devices[@]}}}")
    share=$((${#devices[@]} / ${#specs[@]}))
    REPLICAS=${REPLICAS:-$((share / TP))}
    if ((REPLICAS < 1 || REPLICAS * TP > share)); then
        refuse "${#devices[@]} GPUs for ${#specs[@]} judges leave $share each; $REPLICAS copies of TP=$TP do not fit"
    fi
fi

names=() models=() line=''
for i in "${!specs[@]}"; do
    name=${specs[i]%%=*} model=${specs[i]#*=}
    if [[ ${specs[i]} != *=* || $name == */* ]]; then model=${specs[i]} name=$(basename "$model"); fi
    names+=("$name") models+=("$model")
    line+="${line:+ }$name=http://$ADVERTISE:$((PORT + i))/v1"
done
gpus_of() { local IFS=,; echo "${devices[*]:$1 * share:REPLICAS * TP}"; }  # NUMBER OF A JUDGE

if [[ -n $check ]]; then
    bad=0
    for i in "${!specs[@]}"; do
        where="port $((PORT + i))"
        [[ $DEVICE == cpu ]] || where="GPUs $(gpus_of "$i"), $where"
        echo "${names[i]}: ${models[i]}, $REPLICAS copies, $where" >&2
        ! missing "${models[i]}" || { bad=1; echo "serve_judge.sh: no such model folder: ${models[i]}" >&2; }
        "$PYTHON" -c 'import socket, sys
with socket.socket() as one:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try: one.bind((sys.argv[1], int(sys.argv[2])))
    except OSError as error: sys.exit(f"serve_judge.sh: port {sys.argv[2]} of {sys.argv[1]}: {error.strerror}")
' "$HOST" $((PORT + i)) || bad=1
    done
    echo "JUDGES=\"$line\""
    exit "$bad"
fi

mkdir -p "$LOGS"
[[ -z $JUDGES_FILE ]] || rm -f "$JUDGES_FILE"
servers=()
trap end_jobs EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for i in "${!specs[@]}"; do
    name=${names[i]}
    if [[ $DEVICE != cpu ]]; then CUDA_VISIBLE_DEVICES=$(gpus_of "$i") && export CUDA_VISIBLE_DEVICES; fi
    : >"$LOGS/$name.ready"
    "$PYTHON" -m alignxplore.serving "${models[i]}" --port $((PORT + i)) --log "$LOGS/$name.log" --host "$HOST" \
        --limit "$LIMIT" --served-model-name "$name" ${MAX_MODEL_LEN:+--max-model-len "$MAX_MODEL_LEN"} \
        --tensor-parallel-size "$TP" --data-parallel-size "$REPLICAS" "${arguments[@]}" >"$LOGS/$name.ready" 2>&1 &
    servers+=($!)
done
echo "serve_judge.sh: starting ${names[*]} with $REPLICAS copies each (a large model takes minutes); logs: $LOGS/" >&2

for i in "${!servers[@]}"; do  # `ready:` is said by alignxplore/serving/server.py once the health check answers
    until grep -q '^ready:' "$LOGS/${names[i]}.ready"; do
        kill -0 "${servers[i]}" 2>/dev/null || { cat "$LOGS/${names[i]}.ready" >&2; exit 1; }
        sleep 0.5
    done
done
echo "JUDGES=\"$line\""
if [[ -n $JUDGES_FILE ]]; then
    mkdir -p "$(dirname "$JUDGES_FILE")"
    echo "$line" >"$JUDGES_FILE.partial"
    mv "$JUDGES_FILE.partial" "$JUDGES_FILE"
fi

all_run() { local pid; for pid in "${servers[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done; }
while all_run; do sleep 0.5; done  # `wait -n` would not see one that ended before it
echo "serve_judge.sh: a server ended by itself; see $LOGS/" >&2
exit 1
