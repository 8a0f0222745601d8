"""A LoRA adapter of `sft.py --use_peft` → a model folder like any other, which vLLM serves and eval/ measures.

    python merge_adapter.py --adapter outputs/tallrec --out outputs/tallrec_merged

The adapter's weights are added to its base model's in 32 bits and stored in the base's own type. Written aside, then
renamed.
"""

from alignxplore.command import run
from alignxplore.sft.adapters import MergeOptions, merge_adapter

if __name__ == "__main__":
    run(merge_adapter, MergeOptions, __doc__)
