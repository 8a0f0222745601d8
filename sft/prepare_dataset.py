"""SFT rows → a tokenised data set on disk, ready for `sft.py`. First step of SFT training.

    cd sft
    python prepare_dataset.py                                            # the published rows, for Qwen3-8B
    python prepare_dataset.py --data rows.jsonl --model ../models/base --out tokenized_dataset
    python prepare_dataset.py --data rows.jsonl --check                  # prove and count the rows, write nothing

A row is {"prompt": [messages], "completion": [messages]}. The output folder (`datasets.save_to_disk`) has two columns,
`input_ids` and `labels`; labels are -100 on the prompt, so the loss falls on the completion only, its end-of-turn
token included. Rows longer than --max_length are dropped and counted, never cut. `manifest.json` is written last: it
holds the counts, the histogram of lengths and the fingerprints of tokenizer and chat template. `sft.py` refuses other
ones.
"""

from alignxplore.command import run
from alignxplore.sft.tokenised_set import PrepareOptions, prepare_dataset

if __name__ == "__main__":
    run(prepare_dataset, PrepareOptions, __doc__)
