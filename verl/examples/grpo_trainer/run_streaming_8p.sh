#!/usr/bin/env bash
# Streaming GRPO of the summary writer. The defaults are the published run: 8 nodes of 8 GPUs, Qwen3-8B after SFT.
#
#   JUDGES="qwen3=http://judge:8000/v1" bash verl/examples/grpo_trainer/run_streaming_8p.sh
#   PRESET=tiny MODEL=... TRAIN=... VAL=... JUDGES=... OUT=... bash verl/examples/grpo_trainer/run_streaming_8p.sh
#   PRESET=paper bash verl/examples/grpo_trainer/run_streaming_8p.sh --check      # compose and validate, start nothing
#
# The variables below are the settings that most runs choose; what is not set has the value of the preset
# (verl/config/preset/PRESET.yaml, with its source). Further arguments are verl's own (Hydra, key=value) and win over
# everything here. OUT/config.yaml is what came of it.
# Run the same command again after an interruption: it continues from the last complete checkpoint.
# It leaves OUT/model (Hugging Face folder, last step), OUT/best (best validation reward), OUT/metrics.jsonl,
# OUT/validation.jsonl, OUT/samples.jsonl, OUT/log/train.log. On several nodes start Ray first and set RAY_ADDRESS.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../../../shell.bash"
help_if_asked "$@"

PRESET=${PRESET:-paper}             # paper, node, gpu, solo or tiny
[[ -f $ROOT/verl/config/preset/$PRESET.yaml ]] ||
    refuse "unknown PRESET=$PRESET; choose paper, node, gpu, solo or tiny"
MODE=${MODE:-}                      # sync; async trains on the users of the step before while this step's are written
[[ -z $MODE || -f $ROOT/verl/config/mode/$MODE.yaml ]] || refuse "unknown MODE=$MODE; choose sync or async"

# ---- what to train, on what, judged by whom -------------------------------------------------------------------------
MODEL=${MODEL:-}                    # the SFT model, folder or hub id (paper: RL starts from it); outputs/sft
TRAIN=${TRAIN:-}                    # from ../data_preprocess/upi_streaming_dataset.py; outputs/rl_train.parquet
VAL=${VAL:-}                        # held-out users (published: the training file); outputs/rl_val.parquet
JUDGES=${JUDGES:-}                  # "name=http://host:port/v1 ..."; the reward is their mean
VAL_JUDGES=${VAL_JUDGES:-}          # the same of judges that are asked in validation only, and give no reward
JUDGE_TOKENIZER=${JUDGE_TOKENIZER:-}  # path or hub id, or "name=path ..." or one a line; default: the server's
JUDGE_ORDERS=${JUDGE_ORDERS:-}      # published: one random order a rollout; both | one | per_rollout
OUT=${OUT:-}                        # outputs/rl
SEED=${SEED:-}

# ---- the stream -----------------------------------------------------------------------------------------------------
STAGES=${STAGES:-}                  # published trainer: two stages
ROLLOUTS=${ROLLOUTS:-}              # published script: rollout.n=4, for each stage
TARGETS=${TARGETS:-}                # published: a summary is judged by one choice; more: and by those after it
CREDIT=${CREDIT:-}                  # published trainer: paper; paper | centered
DISCOUNT=${DISCOUNT:-}              # published trainer: lambda 0.9, written into the code

# ---- sizes ----------------------------------------------------------------------------------------------------------
BATCH=${BATCH:-}                    # users a step; published script: train_batch_size=1024
MINI_BATCH=${MINI_BATCH:-}          # users an update; published: 2,048 rows, which are 256 users of 8
PROMPT_LENGTH=${PROMPT_LENGTH:-}    # published script: max_prompt_length=8192
RESPONSE_LENGTH=${RESPONSE_LENGTH:-}  # published script: max_response_length=4096
EPOCHS=${EPOCHS:-}                  # published script: total_epochs=1
STEPS=${STEPS:-}                    # as many as the epochs give, but 40 with PRESET=tiny without EPOCHS
LR=${LR:-}                          # published script: lr=1e-6, no KL, no entropy bonus
SAVE_EVERY=${SAVE_EVERY:-}          # steps; published script: save_freq=30, two to four hours of 64 GPUs
TEST_EVERY=${TEST_EVERY:-}          # steps; the published run never validates

# ---- the machine ----------------------------------------------------------------------------------------------------
NNODES=${NNODES:-}                  # published script: 8 nodes of 8 GPUs
GPUS=${GPUS:-}                      # of a node
DEVICE=${DEVICE:-}                  # cuda, but cpu with PRESET=tiny
TP=${TP:-}                          # published script: tensor_model_parallel_size=2 for vLLM
DTYPE=${DTYPE:-}                    # of the rollouts; the trainer's master weights are float32
GPU_MEMORY=${GPU_MEMORY:-}          # share that vLLM takes while it writes
TOKENS_PER_GPU=${TOKENS_PER_GPU:-}  # tokens of one forward and backward pass
MAX_SEQUENCES=${MAX_SEQUENCES:-}    # sequences that one vLLM writes at once
WORKERS=${WORKERS:-}                # processes that run the users' streams
POLL_SECONDS=${POLL_SECONDS:-}      # how often the trainer looks whether a step's rollouts are there
LOGGER=${LOGGER:-}                  # [console,tensorboard]; add wandb here if you use it
CHECK=${CHECK:-}                    # 1 or --check: look at the files and the configuration, print its sizes, stop
PYTHON=${PYTHON:-python}

[[ -n $DEVICE || $PRESET != tiny ]] || DEVICE=cpu
[[ -z $DEVICE || -f $ROOT/verl/config/device/$DEVICE.yaml ]] || refuse "unknown DEVICE=$DEVICE; choose cuda or cpu"
chosen=("preset=$PRESET") arguments=()
for word in "$@"; do if [[ $word == --check ]]; then CHECK=1; else arguments+=("$word"); fi; done
if [[ -n $CHECK ]]; then
    chosen+=(streaming.check_only=true)
    JUDGES=${JUDGES:-judge=http://127.0.0.1:8000/v1}
    absent=0 tokenizers=()
    for name in MODEL TRAIN VAL; do
        if [[ -z ${!name} || -e ${!name} ]] || { [[ $name == MODEL ]] && ! missing "$MODEL"; }; then continue; fi
        absent=1
        echo "${0##*/}: $name=${!name} is not there" >&2
    done
    items tokenizers "$JUDGE_TOKENIZER"
    for tokenizer in "${tokenizers[@]}"; do
        ! missing "${tokenizer#*=}" || { absent=1; echo "${0##*/}: JUDGE_TOKENIZER=$tokenizer is not there" >&2; }
    done
    ((absent == 0)) || exit 1
fi

# Only what is set is passed on: texts as they stand, numbers and words as Hydra reads them.
pass() {  # WRITE VARIABLE=KEY...
    local pair name
    for pair in "${@:2}"; do
        name=${pair%%=*}
        [[ -z ${!name} ]] || chosen+=("$("$1" "${pair#*=}" "${!name}")")
    done
}
plain() { printf '%s=%s' "$1" "$2"; }
actor=actor_rollout_ref.actor rollout=actor_rollout_ref.rollout
pass hydra OUT=streaming.out JUDGES=streaming.judges VAL_JUDGES=streaming.val_judges \
    JUDGE_TOKENIZER=streaming.judge_tokenizer MODEL=actor_rollout_ref.model.path TRAIN=data.train_files \
    VAL=data.val_files
pass plain DEVICE=device MODE=mode JUDGE_ORDERS=streaming.judge_orders SEED=streaming.seed STAGES=streaming.stages \
    ROLLOUTS=streaming.rollouts TARGETS=streaming.targets CREDIT=streaming.credit DISCOUNT=streaming.discount \
    POLL_SECONDS=streaming.poll_seconds BATCH=data.train_batch_size PROMPT_LENGTH=data.max_prompt_length \
    RESPONSE_LENGTH=data.max_response_length MINI_BATCH="$actor.ppo_mini_batch_size" LR="$actor.optim.lr" \
    TOKENS_PER_GPU="$actor.ppo_max_token_len_per_gpu" TP="$rollout.tensor_model_parallel_size" \
    DTYPE="$rollout.dtype" GPU_MEMORY="$rollout.gpu_memory_utilization" MAX_SEQUENCES="$rollout.max_num_seqs" \
    WORKERS="$rollout.agent.num_workers" EPOCHS=trainer.total_epochs STEPS=trainer.total_training_steps \
    SAVE_EVERY=trainer.save_freq TEST_EVERY=trainer.test_freq NNODES=trainer.nnodes GPUS=trainer.n_gpus_per_node \
    LOGGER=trainer.logger
epochs=$EPOCHS
for key in trainer.total_epochs ++trainer.total_epochs; do
    ! has "$key" "${arguments[@]}" || epochs=$key
done
[[ -z $epochs || -n $STEPS ]] || chosen+=(trainer.total_training_steps=null)  # verl would take a preset's steps

use_library
export ROOT HYDRA_FULL_ERROR=1 TOKENIZERS_PARALLELISM=false RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0
export VLLM_NO_USAGE_STATS=1

if [[ $DEVICE == cpu ]]; then
    # A small model's threads would wait for each other longer than they work.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TRAIN_THREADS=${TRAIN_THREADS:-2}
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
    export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2}  # glibc's default keeps a heap for each of Ray's many threads
    modules=${VERL_USE_EXTERNAL_MODULES:-}
    export VERL_USE_EXTERNAL_MODULES=alignxplore.rl.cpu_platform${modules:+,$modules} VERL_PLATFORM=cpu
    export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=nobind
    # Nothing but a count in vLLM's sampler would be compiled: seconds of g++, which may not be there.
    export VLLM_ENABLE_V1_MULTIPROCESSING=0 TORCH_COMPILE_DISABLE=${TORCH_COMPILE_DISABLE:-1}
    export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 TQ_NUM_THREADS=1
    unset CUDA_VISIBLE_DEVICES  # Ray's "GPU" slots are no GPUs here; an empty list would forbid them
fi

# exec: a signal to this script reaches the run itself, which stops Ray and everything under it.
exec "$PYTHON" -m alignxplore.rl.train --config-path "$ROOT/verl/config" --config-name streaming \
    "${chosen[@]}" "${arguments[@]}"
