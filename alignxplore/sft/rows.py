"""The rows of a run of `sft.py`: a prepared set as it is; others are prepared into its folder by the first process."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import distributed
from transformers import PreTrainedTokenizerBase

from alignxplore.sft.configuration import TrainArguments
from alignxplore.sft.plan import say
from alignxplore.sft.stored_set import MANIFEST, PrepareError
from alignxplore.sft.tokenised_set import (
    load_prepared,
    measure,
    on_hub,
    prepare,
    read_rows,
    row_lengths,
    set_identity,
)

PATIENCE = timedelta(days=2)  # of all processes for the first one, which tokenises


def is_prepared(source: str) -> bool:
    """Is it a set of prepare_dataset.py? PrepareError for another folder."""
    if (Path(source) / MANIFEST).is_file():
        return True
    if Path(source).is_dir():
        raise PrepareError(
            f"{source}: a folder without {MANIFEST}; it was not written, or not finished, by prepare_dataset.py"
        )
    return False


def identity_of(source: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, Any]:
    """What decides the content of the set of these rows. Of rows that are not prepared yet, one is read at most."""
    if is_prepared(source):
        return load_prepared(source, tokenizer)[1]["identity"]
    if not on_hub(source):
        next(read_rows(source), None)  # a file that is not there is no other run's
    return set_identity([source], tokenizer, max_length, None)


@contextmanager
def first_alone(work: str) -> Iterator[None]:
    """The first process of all does it before the others, however long it takes.

    A barrier would give up with --ddp_timeout, which is there to end a run that hangs (on GPUs after half an hour).

    Args:
        work: what it is; each has a name of its own.
    """
    if not distributed.is_initialized():
        yield
        return
    store = distributed.distributed_c10d._get_default_store()
    if distributed.get_rank():
        store.wait([work], PATIENCE)
        yield
        return
    try:
        yield
    finally:
        store.set(work, "it has ended")


def count_trained(rows: Dataset) -> int:
    """Tokens that carry a label."""
    parts = rows.select_columns("labels").with_format("arrow").iter(1000)
    return sum(int((chunk.flatten().to_numpy() != -100).sum()) for part in parts for chunk in part["labels"].chunks)


def fitting_rows(
    folder: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int, name: str
) -> tuple[Dataset, dict]:
    """The rows of a prepared set that are not too long, and its manifest with the counts of these."""
    rows, manifest = load_prepared(folder, tokenizer)
    places = [i for i, length in enumerate(row_lengths(rows)) if length <= max_length]
    if len(places) < len(rows):
        long_rows = manifest["dropped_too_long"] + len(rows) - len(places)
        rows = rows.select(places)  # by their numbers: a copy would be a file in the folder of the rows
        counts = {"rows": len(rows), "tokens": sum(row_lengths(rows)), "trained_tokens": count_trained(rows)}
        manifest = manifest | counts | {"dropped_too_long": long_rows}
    say_counts(name, manifest)
    return rows, manifest


def say_counts(name: str, manifest: dict) -> None:
    """One line about the rows of a set."""
    say(
        f"{name} data: {manifest['rows']:,} rows, {manifest['tokens']:,} tokens;",
        f"{manifest['dropped_too_long']:,} rows too long",
    )


def load_rows(
    source: str, tokenizer: PreTrainedTokenizerBase, args: TrainArguments, name: str
) -> tuple[Dataset, dict]:
    """A prepared set as it is; other rows are prepared into the output folder by the first process, while the others
    wait."""
    if not is_prepared(source):
        folder = Path(str(args.output_dir)) / f"{name}_data"
        with first_alone(f"prepare {name} rows"):  # all nodes share the folder
            prepare([source], tokenizer, folder, args.max_length)
        source = str(folder)
    return fitting_rows(source, tokenizer, args.max_length, name)


def look_at(
    source: str, tokenizer: PreTrainedTokenizerBase, max_length: int, name: str
) -> tuple[dict[str, Any], list[int]] | None:
    """The manifest of the rows that a run would train on and their lengths, nothing written; None for rows on the
    Hub."""
    if is_prepared(source):
        rows, manifest = fitting_rows(source, tokenizer, max_length, name)
        return manifest, row_lengths(rows)
    if on_hub(source):
        say(f"{name} data: {source} is on the Hub, read when the run starts")
        return None
    manifest, lengths = measure([source], tokenizer, max_length)
    say_counts(name, manifest)
    return manifest, lengths
