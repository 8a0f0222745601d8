#!/usr/bin/env bash
# Launch SFT on the GPUs of one or several nodes (torchrun + DeepSpeed), or on CPU processes. Needs: the tokenised set.
set -euo pipefail

NNODES=${NNODES:-1}                        # number of nodes
NODE_RANK=${NODE_RANK:-0}                  # this node's number, 0 to NNODES-1
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}      # address of node 0
MASTER_PORT=${MASTER_PORT:-29500}          # a free port of node 0
PYTHON=${PYTHON:-python}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<TEXT
Usage: [VARIABLE=value ...] bash sft.sh [--config FILE] [--option value ...]

  bash sft.sh                                    the published settings (configs/qwen3_8b.yaml, ZeRO-3) on all GPUs of this node
  bash sft.sh --learning_rate 1e-5               the same with any option of sft.py changed
  NNODES=8 NODE_RANK=\$R MASTER_ADDR=\$HOST bash sft.sh      one of eight nodes; start it on each
  NPROC=2 bash sft.sh --config configs/tiny.yaml --model_name_or_path DIR --train_data rows.jsonl --output_dir OUT
                                                 a tiny model on two CPU processes

Variables (default): NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), MASTER_PORT (29500; for several nodes),
  NPROC processes on this node (number of GPUs, or 1), PYTHON (python).
Without --config: configs/qwen3_8b.yaml and --deepspeed configs/zero3.json. With --config, add --deepspeed FILE as needed.
Interrupted? Run the same command again: it goes on from the last complete checkpoint (of ZeRO's with the same stage and number of
  processes only; without DeepSpeed on any number). Options: python sft.py --help
TEXT
}

case " $* " in *" --help "* | *" -h "*) usage; exit 0 ;; esac

NPROC=${NPROC:-$("$PYTHON" -c 'import torch; print(max(1, torch.accelerator.device_count()))')}
case " $* " in
    *" --config "*) OPTIONS=() ;;
    *) OPTIONS=(--config "$HERE/configs/qwen3_8b.yaml" --deepspeed "$HERE/configs/zero3.json") ;;
esac
export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"

if [ "$NNODES" -gt 1 ]; then
    LAUNCH=(--nnodes "$NNODES" --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT")
else
    LAUNCH=(--standalone)                  # takes a free port by itself
fi
case "$NNODES $NPROC $* ${OPTIONS[*]:-}" in
    "1 1 "*--deepspeed*) ;;
    "1 1 "*) exec "$PYTHON" "$HERE/sft.py" ${OPTIONS[@]+"${OPTIONS[@]}"} "$@" ;;
esac
exec "$PYTHON" -m torch.distributed.run "${LAUNCH[@]}" --nproc_per_node "$NPROC" "$HERE/sft.py" ${OPTIONS[@]+"${OPTIONS[@]}"} "$@"
