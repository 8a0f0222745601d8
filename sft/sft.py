"""Full-parameter SFT (or LoRA with --use_peft) of a causal model on prompt/completion rows: TRL, plain, DDP or
DeepSpeed ZeRO.

    python sft.py --config configs/tiny.yaml --train_data rows.jsonl --out outputs/sft     # one process, also on a CPU
    python sft.py --config configs/qwen3_8b.yaml --check                  # what would be trained; starts nothing
    bash sft.sh                                                           # all GPUs, the 8B settings
    NPROC=2 bash sft.sh --config configs/tiny.yaml --deepspeed configs/zero3.json ...      # several processes

Every option of TRL's SFTConfig and ModelConfig can stand in the YAML and on the command line (the line wins). Run the
same command again after a kill: it goes on from the last complete checkpoint; a finished run is not redone.
Comes after prepare_dataset.py; the folder it writes is the policy that verl/ trains further and eval/ measures.
"""

from alignxplore.command import run
from alignxplore.sft.configuration import DataArguments, ModelConfig, TrainArguments
from alignxplore.sft.training import sft

if __name__ == "__main__":
    run(sft, (DataArguments, TrainArguments, ModelConfig), __doc__)
