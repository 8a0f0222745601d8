"""The users of a run as verl's trainer sees them: one row a user, its history once, no prompt yet.

A prompt of stage 2 needs a summary that does not exist before stage 1 was written, so prompts are built by the rollout
worker (alignxplore/rl/streaming.py). The parquet files come from
verl/examples/data_preprocess/upi_streaming_dataset.py.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow.parquet
import torch
from torch.utils.data import Dataset

from alignxplore.records import Interaction, RecordError

COLUMNS = ("user", "history", "positions")


class Stage(NamedTuple):
    """What the policy reads in one stage, and the interactions that its summary is judged by, at least one."""

    interactions: tuple[Interaction, ...]
    targets: tuple[Interaction, ...]


def cut_stages(history: Sequence[Interaction], positions: Sequence[int], targets: int = 1) -> list[Stage]:
    """Stage k reads what lies between target k-1 (included) and target k, which is `history[positions[k]]`.

    Args:
        targets: interactions that a summary is judged by: the target, and those after it that have an alternative, as
            far as the history goes.
    """
    starts = [0, *positions[:-1]]
    return [
        Stage(tuple(history[start:end]), (history[end], *_with_alternative(history[end + 1 :], targets - 1)))
        for start, end in zip(starts, positions)
    ]


def _with_alternative(interactions: Sequence[Interaction], count: int) -> list[Interaction]:
    return [interaction for interaction in interactions if interaction.rejected is not None][:count]


class StreamingDataset(Dataset):
    """Rows for verl's dataloader (`data.custom_cls`): user, history and target positions, whatever else verl asks for
    empty.

    Args:
        data_files: one parquet file or a list of them.
        max_samples: take only the first so many users; -1 takes all.
    """

    def __init__(
        self,
        data_files: str | Sequence[str],
        tokenizer: Any = None,
        config: Any = None,
        processor: Any = None,
        max_samples: int = -1,
    ):
        paths = [data_files] if isinstance(data_files, str) else list(data_files)
        tables = []
        for path in paths:
            try:
                table = pyarrow.parquet.read_table(path, memory_map=True)
            except pyarrow.ArrowInvalid as error:
                remedy = "make the file with upi_streaming_dataset.py"
                raise RecordError(f"no Parquet file, or a damaged one ({error}); {remedy}", path) from None
            absent_columns = [name for name in COLUMNS if name not in table.column_names]
            if absent_columns:
                raise RecordError(
                    f"no column '{absent_columns[0]}'; make the file with upi_streaming_dataset.py", path
                )
            tables.append(table.select(COLUMNS))
        self.table = pyarrow.concat_tables(tables)
        if max_samples > 0:
            self.table = self.table.slice(0, max_samples)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> dict:
        row = {name: self.table[name][index].as_py() for name in COLUMNS}
        return {
            "index": index,
            "extra_info": row,
            "data_source": "stream",
            "raw_prompt": [],
            "reward_model": {},
            "dummy_tensor": torch.zeros(1, dtype=torch.uint8),  # verl takes the batch size from a tensor
        }


def parse_row(row: dict, targets: int = 1) -> tuple[str, list[Stage]]:
    """The `extra_info` of a row → user and stages (see `cut_stages`)."""
    history = [Interaction(x["chosen"], x["rejected"], x["query"]) for x in row["history"]]
    return row["user"], cut_stages(history, row["positions"], targets)
