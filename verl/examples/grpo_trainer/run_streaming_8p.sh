#!/usr/bin/env bash
# Streaming GRPO of the summary writer. The defaults are the published run: 8 nodes of 8 GPUs, Qwen3-8B after SFT.
#
#   JUDGES="qwen3=http://judge:8000/v1" bash verl/examples/grpo_trainer/run_streaming_8p.sh
#   PRESET=tiny MODEL=... TRAIN=... VAL=... JUDGES=... OUT=... bash verl/examples/grpo_trainer/run_streaming_8p.sh
#   PRESET=paper bash verl/examples/grpo_trainer/run_streaming_8p.sh --check      # compose and validate, start nothing
#
# Every setting below is a variable; further arguments are verl's own (Hydra, key=value) and win over everything here.
# Run the same command again after an interruption: it continues from the last complete checkpoint.
# It leaves OUT/model (Hugging Face folder, last step), OUT/best (best validation reward), OUT/metrics.jsonl,
# OUT/validation.jsonl, OUT/samples.jsonl, OUT/log/train.log. On several nodes start Ray first and set RAY_ADDRESS.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../../../shell.bash"
help_if_asked "$@"

PRESET=${PRESET:-paper}             # paper, node, gpu or tiny

# ---- what differs between presets -----------------------------------------------------------------------------------
case $PRESET in
paper) ;; # the defaults below
node) # one node of 8 GPUs: the published settings with a quarter of the users a step, and updates of the same size
    : "${NNODES:=1}" "${BATCH:=256}" "${MINI_BATCH:=256}" "${JUDGE_ORDERS:=both}"
    ;;
gpu) # one GPU of 80 GB and a small model (Qwen3-1.7B)
    : "${NNODES:=1}" "${GPUS:=1}" "${TP:=1}" "${BATCH:=64}" "${MINI_BATCH:=64}" "${JUDGE_ORDERS:=both}"
    : "${MODEL:=Qwen/Qwen3-1.7B}" "${PROMPT_LENGTH:=4096}" "${RESPONSE_LENGTH:=2048}" "${TOKENS_PER_GPU:=12288}"
    : "${GPU_MEMORY:=0.5}" "${WORKERS:=2}"
    ;;
tiny) # a CPU with two cores and a model of a few million parameters
    : "${DEVICE:=cpu}" "${NNODES:=1}" "${GPUS:=1}" "${TP:=1}" "${DTYPE:=float32}" "${WORKERS:=1}"
    : "${JUDGE_ORDERS:=both}" "${BATCH:=16}" "${MINI_BATCH:=16}" "${LR:=3e-4}" "${STEPS:=40}"
    : "${SAVE_EVERY:=20}" "${TEST_EVERY:=20}"
    : "${PROMPT_LENGTH:=768}" "${RESPONSE_LENGTH:=128}" "${TOKENS_PER_GPU:=8192}" "${POLL_SECONDS:=0.05}"
    : "${MAX_SEQUENCES:=64}"
    ;;
*)
    refuse "unknown PRESET=$PRESET; choose paper, node, gpu or tiny" ;;
esac

given=(${MODEL:+MODEL} ${TRAIN:+TRAIN} ${VAL:+VAL})    # what the caller or the preset chose

# ---- what to train, on what, judged by whom -------------------------------------------------------------------------
MODEL=${MODEL:-$ROOT/outputs/sft}   # the SFT model, folder or hub id (paper: RL starts from it)
TRAIN=${TRAIN:-$ROOT/outputs/rl_train.parquet}  # from verl/examples/data_preprocess/upi_streaming_dataset.py
VAL=${VAL:-$ROOT/outputs/rl_val.parquet}  # held-out users (published: the training file, and no validation)
JUDGES=${JUDGES:-}                  # "name=http://host:port/v1 ..."; the reward is their mean
VAL_JUDGES=${VAL_JUDGES:-}          # the same of judges that are asked in validation only, and give no reward
JUDGE_TOKENIZER=${JUDGE_TOKENIZER:-}  # path or hub id, or "name=path ..." or one a line; default: the server's
JUDGE_ORDERS=${JUDGE_ORDERS:-per_rollout}  # published: one random order a rollout; both | one | per_rollout
OUT=${OUT:-$ROOT/outputs/rl}
SEED=${SEED:-0}

# ---- the stream -----------------------------------------------------------------------------------------------------
STAGES=${STAGES:-2}                 # published trainer: two stages
ROLLOUTS=${ROLLOUTS:-4}             # published script: rollout.n=4, for each stage
TARGETS=${TARGETS:-1}               # published: a summary is judged by one choice; more: and by those after it
CREDIT=${CREDIT:-paper}             # published trainer; paper | centered
DISCOUNT=${DISCOUNT:-0.9}           # published trainer: lambda 0.9, written into the code

# ---- sizes ----------------------------------------------------------------------------------------------------------
BATCH=${BATCH:-1024}                # published script: train_batch_size=1024 users
MINI_BATCH=${MINI_BATCH:-256}       # published: 512 and 2,048 rows an update; verl 0.9.1 counts 8 rows a user
PROMPT_LENGTH=${PROMPT_LENGTH:-8192}  # published script: max_prompt_length=8192
RESPONSE_LENGTH=${RESPONSE_LENGTH:-4096}  # published script: max_response_length=4096
EPOCHS=${EPOCHS:-1}                 # published script: total_epochs=1
STEPS=${STEPS:-}                    # default: as many as the epochs give
LR=${LR:-1e-6}                      # published script: lr=1e-6, no KL, no entropy bonus
SAVE_EVERY=${SAVE_EVERY:-10}        # published script: save_freq=30, which is two to four hours of 64 GPUs
TEST_EVERY=${TEST_EVERY:-30}        # ours: the published run never validates

# ---- the machine ----------------------------------------------------------------------------------------------------
NNODES=${NNODES:-8}                 # published script: 8 nodes of 8 GPUs
GPUS=${GPUS:-8}
DEVICE=${DEVICE:-cuda}
TP=${TP:-2}                         # published script: tensor_model_parallel_size=2 for vLLM
DTYPE=${DTYPE:-bfloat16}            # of the rollouts; the trainer's master weights are float32
GPU_MEMORY=${GPU_MEMORY:-0.6}       # share that vLLM takes while it writes
TOKENS_PER_GPU=${TOKENS_PER_GPU:-24576}  # tokens of one forward and backward pass; holds two of the longest rows
MAX_SEQUENCES=${MAX_SEQUENCES:-256}  # sequences that one vLLM writes at once
WORKERS=${WORKERS:-8}               # processes that run the users' streams
POLL_SECONDS=${POLL_SECONDS:-1}     # how often the trainer looks whether a step's rollouts are there
LOGGER=${LOGGER:-[console,tensorboard]}  # add wandb here if you use it
CHECK=${CHECK:-}                    # 1 or --check: look at the files and the configuration, print its sizes, stop
PYTHON=${PYTHON:-python}

arguments=() extra=()
for word in "$@"; do if [[ $word == --check ]]; then CHECK=1; else arguments+=("$word"); fi; done
[[ -z $STEPS ]] || extra+=("trainer.total_training_steps=$STEPS")
[[ -z $JUDGE_TOKENIZER ]] || extra+=("$(hydra streaming.judge_tokenizer "$JUDGE_TOKENIZER")")
if [[ -n $CHECK ]]; then
    extra+=(streaming.check_only=true)
    JUDGES=${JUDGES:-judge=http://127.0.0.1:8000/v1}
    absent=0 tokenizers=()
    for name in MODEL TRAIN VAL; do
        if [[ $name == MODEL ]]; then missing "$MODEL" || continue; elif [[ -e ${!name} ]]; then continue; fi
        if has "$name" "${given[@]}"; then absent=1; fi
        echo "${0##*/}: $name=${!name} is not there$(has "$name" "${given[@]}" || echo ' yet')" >&2
    done
    items tokenizers "$JUDGE_TOKENIZER"
    for tokenizer in "${tokenizers[@]}"; do
        ! missing "${tokenizer#*=}" || { absent=1; echo "${0##*/}: JUDGE_TOKENIZER=$tokenizer is not there" >&2; }
    done
    ((absent == 0)) || exit 1
fi

use_library
export TENSORBOARD_DIR=${TENSORBOARD_DIR:-$OUT/tensorboard}
export HYDRA_FULL_ERROR=1 TOKENIZERS_PARALLELISM=false RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0
export VLLM_NO_USAGE_STATS=1

if [[ $DEVICE == cpu ]]; then
    # A small model's threads would wait for each other longer than they work.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TRAIN_THREADS=${TRAIN_THREADS:-2}
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
    export VERL_USE_EXTERNAL_MODULES=alignxplore.rl.cpu_platform VERL_PLATFORM=cpu
    export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=nobind
    export VLLM_ENABLE_V1_MULTIPROCESSING=0
    export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 TQ_NUM_THREADS=1
    unset CUDA_VISIBLE_DEVICES  # Ray's "GPU" slots are no GPUs here; an empty list would forbid them
    actor=actor_rollout_ref.actor rollout=actor_rollout_ref.rollout
    extra+=(
        actor_rollout_ref.model.use_remove_padding=false
        actor_rollout_ref.model.enable_gradient_checkpointing=false
        +actor_rollout_ref.model.override_config.attn_implementation=sdpa
        "$actor.use_torch_compile=false" "$actor.fsdp_config.use_torch_compile=false"
        "$actor.fsdp_config.dtype=float32"
        "+$actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}"
        "$rollout.enforce_eager=true" "$rollout.free_cache_engine=false" "+$rollout.enable_sleep_mode=false"
        "$rollout.enable_chunked_prefill=false"  # a prompt read in pieces, sampled with a seed, ends vLLM's CPU engine
        "$rollout.load_format=auto" "$rollout.checkpoint_engine.update_weights_bucket_megabytes=64"
        "+$rollout.engine_kwargs.vllm.worker_extension_cls=alignxplore.rl.cpu_vllm.UpdatableWorker"
        "+$rollout.engine_kwargs.vllm.distributed_executor_backend=uni" "+$rollout.engine_kwargs.vllm.block_size=32"
        transfer_queue.backend.SimpleStorage.num_data_storage_units=1
    )
    # Ray counts slots, not cores: each training rank takes one "GPU", the helpers one "CPU" each. A Ray that runs
    # already has its own.
    [[ -n ${RAY_ADDRESS:-} ]] || extra+=(
        ray_kwargs.ray_init.num_cpus=$((12 + 4 * GPUS)) "+ray_kwargs.ray_init.num_gpus=$GPUS"
        +ray_kwargs.ray_init.include_dashboard=false +ray_kwargs.ray_init.object_store_memory=300000000
    )
fi

# exec: a signal to this script reaches the run itself, which stops Ray and everything under it.
exec "$PYTHON" -m alignxplore.rl.train --config-path "$ROOT/verl/config" --config-name streaming \
    "$(hydra streaming.out "$OUT")" "$(hydra streaming.judges "$JUDGES")" \
    "$(hydra streaming.val_judges "$VAL_JUDGES")" \
    "$(hydra actor_rollout_ref.model.path "$MODEL")" "$(hydra data.train_files "$TRAIN")" \
    "$(hydra data.val_files "$VAL")" \
    "streaming.judge_orders=$JUDGE_ORDERS" "streaming.seed=$SEED" "streaming.stages=$STAGES" \
    "streaming.rollouts=$ROLLOUTS" "streaming.targets=$TARGETS" "streaming.credit=$CREDIT" \
    "streaming.discount=$DISCOUNT" "streaming.poll_seconds=$POLL_SECONDS" \
    "data.seed=$SEED" "data.train_batch_size=$BATCH" \
    "data.max_prompt_length=$PROMPT_LENGTH" "data.max_response_length=$RESPONSE_LENGTH" \
    "actor_rollout_ref.actor.ppo_mini_batch_size=$MINI_BATCH" "actor_rollout_ref.actor.optim.lr=$LR" \
    actor_rollout_ref.actor.use_dynamic_bsz=true "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=$TOKENS_PER_GPU" \
    "actor_rollout_ref.rollout.tensor_model_parallel_size=$TP" "actor_rollout_ref.rollout.dtype=$DTYPE" \
    "actor_rollout_ref.rollout.gpu_memory_utilization=$GPU_MEMORY" \
    "actor_rollout_ref.rollout.max_num_seqs=$MAX_SEQUENCES" \
    "actor_rollout_ref.rollout.max_model_len=$((PROMPT_LENGTH + RESPONSE_LENGTH))" \
    "actor_rollout_ref.rollout.max_num_batched_tokens=$((PROMPT_LENGTH + RESPONSE_LENGTH))" \
    "actor_rollout_ref.rollout.seed=$SEED" "actor_rollout_ref.rollout.agent.num_workers=$WORKERS" \
    "trainer.total_epochs=$EPOCHS" "trainer.save_freq=$SAVE_EVERY" "trainer.test_freq=$TEST_EVERY" \
    "trainer.nnodes=$NNODES" "trainer.n_gpus_per_node=$GPUS" "trainer.device=$DEVICE" "trainer.logger=$LOGGER" \
    "${extra[@]}" "${arguments[@]}"
