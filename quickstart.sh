#!/usr/bin/env bash
# From nothing to the table: make the environment, then run the whole pipeline for real on a CPU with tiny models.
#
#   ./quickstart.sh                 a simulated world: SFT, streaming GRPO, evaluation, table and plots (two cores, 12 GB)
#   ./quickstart.sh --real          real data and a real small model instead: MovieLens latest-small, SmolLM2-135M-Instruct
#   ./quickstart.sh --out DIR       where everything goes (default: runs/quickstart, or runs/real)
#   ./quickstart.sh --no-install    in the environment that is active now; nothing is installed
#
# Interrupted? Run the same command again: what is finished is kept. Every step is made of ordinary commands of this
# repository; they are printed before they run, and what they say is in DIR/logs. Other sizes or another seed need another folder.
#
# Variables (the defaults fit two cores):
#   SEED          1      seed of the world, the models and all draws
#   TEST_USERS    600    users of the test benchmark: what the intervals of the table need
#   TRAIN_USERS   2000   users whose histories RL trains on;   VAL_USERS  64  held-out users during RL
#   SFT_USERS     1500   users behind the SFT rows;            JUDGE_ROWS 12000  rows each judge learns from
#   READER_ROWS   4000   rows from which the untrained policy learns to read, as Qwen3 has before SFT
#   RL_STEPS      40     RL updates;                           RL_LR      3e-4   their learning rate
#   REAL_USERS    24     users of the real benchmark (--real)
#   SFT_OPTIONS          more options of sft/sft.py; NPROC=2 SFT_OPTIONS="--deepspeed sft/configs/zero3.json" trains on two processes
set -euo pipefail

SEED=${SEED:-1} TEST_USERS=${TEST_USERS:-600} TRAIN_USERS=${TRAIN_USERS:-2000} VAL_USERS=${VAL_USERS:-64}
SFT_USERS=${SFT_USERS:-1500} JUDGE_ROWS=${JUDGE_ROWS:-12000} READER_ROWS=${READER_ROWS:-4000} RL_STEPS=${RL_STEPS:-40} RL_LR=${RL_LR:-3e-4}
REAL_USERS=${REAL_USERS:-24} SFT_OPTIONS=${SFT_OPTIONS:-}

kind=world out='' setup=()
while (($#)); do
    case $1 in
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
        --real) kind=real ;;
        --out) out=$(realpath -m "${2:?--out needs a folder}"); shift ;;  # before the cd below: as seen by who called
        --no-install) setup=(--no-install) ;;
        *) echo "quickstart.sh: unknown option '$1'; see ./quickstart.sh --help" >&2; exit 2 ;;
    esac
    shift
done

cd "$(dirname "${BASH_SOURCE[0]}")"
[[ $kind == world ]] && out=${out:-runs/quickstart}
OUT=$(realpath -m "${out:-runs/$kind}")
export DEVICE=cpu
source ./setup.sh
prepare_environment "${setup[@]}"

source quickstart/steps.bash
if [[ $kind == world ]]; then
    same_settings SEED TEST_USERS TRAIN_USERS VAL_USERS SFT_USERS JUDGE_ROWS READER_ROWS RL_STEPS RL_LR SFT_OPTIONS
else
    same_settings SEED REAL_USERS
fi
source "quickstart/$kind.bash"
where_the_time_went
printf '\nresults  %s\nreport   %s\nfigures  %s\n' "$OUT/results.json" "$OUT/report.html" "$OUT/figures/"
