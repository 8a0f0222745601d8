#!/usr/bin/env bash
# From nothing to the table: make the environment, then run the whole pipeline for real on a CPU with tiny models.
#
#   ./quickstart.sh              a simulated world: SFT, streaming GRPO, evaluation, table and plots (two cores, 12 GB)
#   ./quickstart.sh --real          real data and a real small model: MovieLens latest-small, SmolLM2-135M-Instruct
#   ./quickstart.sh --out DIR       where everything goes (default: runs/quickstart, or runs/real)
#   ./quickstart.sh --no-install    in the environment that is active now; nothing is installed
#   ./quickstart.sh --check         print the steps, which are done and how long the others take; start nothing
#
# Interrupted? Run the same command again: what is finished is kept. Every step is made of ordinary commands of this
# repository; they are printed before they run, and what they say is in DIR/logs. Other sizes or another seed need
# another folder. NPROC=2 SFT_OPTIONS="--deepspeed sft/configs/zero3.json" trains on two processes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
help_if_asked "$@"

SEED=${SEED:-1}                     # seed of the world, the models and all draws; all defaults fit two cores
TEST_USERS=${TEST_USERS:-600}       # users of the test benchmark: what the intervals of the table need
TRAIN_USERS=${TRAIN_USERS:-2000}    # users whose histories RL trains on
VAL_USERS=${VAL_USERS:-64}          # held-out users during RL
SFT_USERS=${SFT_USERS:-1500}        # users behind the SFT rows
JUDGE_ROWS=${JUDGE_ROWS:-12000}     # rows each judge learns from
READER_ROWS=${READER_ROWS:-4000}    # rows from which the untrained policy learns to read, as Qwen3 has before SFT
RL_STEPS=${RL_STEPS:-40}            # RL updates
RL_LR=${RL_LR:-3e-4}                # their learning rate
REAL_USERS=${REAL_USERS:-24}        # users of the real benchmark (--real)
SFT_OPTIONS=${SFT_OPTIONS:-}        # more options of sft/sft.py

kind=world out='' setup=() only_check=''
while (($#)); do
    case $1 in
        --real) kind=real ;;
        --out) out=$(realpath -m "${2:?--out needs a folder}"); shift ;;  # before the cd below: as seen by who called
        --no-install) setup=(--no-install) ;;
        --check) only_check=1 ;;
        *) refuse "unknown option '$1'; see ./quickstart.sh --help" ;;
    esac
    shift
done

cd "$ROOT"
[[ $kind == world ]] && out=${out:-runs/quickstart}
OUT=$(realpath -m "${out:-runs/$kind}")
export DEVICE=cpu
[[ -z $only_check ]] || setup=("${setup[@]:---check}")
prepare_environment "${setup[@]}"

source quickstart/steps.bash
if [[ $kind == world ]]; then
    same_settings SEED TEST_USERS TRAIN_USERS VAL_USERS SFT_USERS JUDGE_ROWS READER_ROWS RL_STEPS RL_LR SFT_OPTIONS
else
    same_settings SEED REAL_USERS
fi
# shellcheck source=quickstart/world.bash
source "quickstart/$kind.bash"
where_the_time_went
printf '\nresults  %s\nreport   %s\nfigures  %s\n' "$OUT/results.json" "$OUT/report.html" "$OUT/figures/"
