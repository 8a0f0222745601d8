"""RL rows (JSONL, one user a line) to the parquet file that the trainer reads; each history is stored once.

    cd verl/examples/data_preprocess
    python upi_streaming_dataset.py                      # the published rows, where run_streaming_8p.sh looks for them
    python upi_streaming_dataset.py --data rl.jsonl --out rl_train.parquet --val-out rl_val.parquet --val-users 256

A row holds `uid`, `history` and where the targets stand in it: `positions` [p1, ..., pK], or `mid_position` for two
stages (target 1 is history[mid_position], target 2 the last interaction). Stage k reads what lies between the target
before it, included, and its own, excluded. For --stages other than 2 a row without `positions` gets them spread
evenly, whatever its `mid_position`. Other fields are ignored. Bad rows stop the conversion with file, line, field and
remedy; the output appears only when all rows are through.
"""

from alignxplore.command import run
from alignxplore.rl.rows import RowOptions, convert

if __name__ == "__main__":
    run(convert, RowOptions, __doc__)
