#!/usr/bin/env bash
# Launch SFT on the GPUs of one or several nodes (torchrun + DeepSpeed), or on CPU processes. Needs: the tokenised set.
#
#   bash sft.sh                         the published settings (configs/qwen3_8b.yaml, ZeRO-2) on all GPUs of this node
#   bash sft.sh --learning_rate 1e-5               the same with any option of sft.py changed
#   NNODES=8 NODE_RANK=$R MASTER_ADDR=$HOST bash sft.sh      one of eight nodes; start it on each
#   NPROC=2 bash sft.sh --config configs/tiny.yaml --model_name_or_path DIR --train_data rows.jsonl --output_dir OUT
#                                                  a tiny model on two CPU processes
#   bash sft.sh --check                            look at the options and files, print the sizes, start nothing
#   NNODES=8 NPROC=8 bash sft.sh --check           the same for 64 GPUs, on any machine
#
# Without --config: configs/qwen3_8b.yaml and --deepspeed configs/zero2.json. With --config, add --deepspeed FILE as
# needed. SIGTERM saves the running step. Interrupted? Run the same command again: it goes on from the last complete
# checkpoint (of ZeRO's with the same stage and number of processes only; without DeepSpeed on any number). Options:
# python sft.py --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../shell.bash"
help_if_asked "$@"

NNODES=${NNODES:-1}                 # number of nodes
NODE_RANK=${NODE_RANK:-0}           # this node's number, 0 to NNODES-1
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}    # address of node 0
MASTER_PORT=${MASTER_PORT:-29500}   # a free port of node 0
NPROC=${NPROC:-}                    # processes on this node (default: number of GPUs, or 1)
PYTHON=${PYTHON:-python}
# Seconds in which processes that are told to end may still save.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}

NPROC=${NPROC:-$("$PYTHON" -c 'import torch; print(max(1, torch.accelerator.device_count()))')}
command=("$ROOT/sft/sft.py")
has --config "$@" || command+=(--config "$ROOT/sft/configs/qwen3_8b.yaml" --deepspeed "$ROOT/sft/configs/zero2.json")
nproc=$NPROC
if has --check "$@"; then           # one process looks, and reckons with all
    nproc=1
    command+=(--processes $((NNODES * NPROC)))
    echo "sft.sh: NNODES=$NNODES nodes of NPROC=$NPROC processes each; one process here looks"
fi
command+=("$@")
use_library

launch=(--standalone)               # takes a free port by itself
if ((NNODES > 1)) && ! has --check "$@"; then
    launch=(--nnodes "$NNODES" --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT")
fi
launch=(-m alignxplore.torchrun "${launch[@]}" --nproc_per_node "$nproc")
asks_for_deepspeed() {  # WORD...: on the command line or in a file of --config. It wants torchrun for one process, too
    local word before=
    for word in "$@"; do
        [[ $word != --deepspeed* ]] || return 0
        [[ $before != --config ]] || word=--config=$word
        before=$word
        if [[ $word == --config=* ]] && grep -qs "^deepspeed *:" "${word#*=}"; then return 0; fi
    done
    return 1
}
if ((NNODES * NPROC == 1)) && ! asks_for_deepspeed "${command[@]}"; then launch=(); fi
exec "$PYTHON" "${launch[@]}" "${command[@]}"
