"""A tokenised set on disk: written whole or not at all, by one process at a time. Used by `tokenised_set.py` and the
signal model."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from alignxplore.errors import UserError
from alignxplore.journal import RunLock
from alignxplore.records import read_object, write_json
from alignxplore.sft.reading import Tokens

MANIFEST = "manifest.json"
FEATURES = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})


class PrepareError(UserError, ValueError):
    """Rows, tokenizer and stored set do not fit together. The message names the place and the remedy."""


def histogram(lengths: Iterable[int]) -> dict[str, int]:
    """Counts by power of two: {"257-512": 31, ...}, shortest first."""
    bins = Counter(max(0, int(n - 1).bit_length()) for n in lengths)
    return {f"{2 ** (b - 1) + 1 if b else 1}-{2**b}": bins[b] for b in sorted(bins)}


def sizes(lengths: Sequence[int], trained_tokens: int) -> dict[str, Any]:
    """What a manifest says of rows with these lengths in tokens, `trained_tokens` of which carry a label."""
    return {
        "rows": len(lengths),
        "tokens": sum(lengths),
        "trained_tokens": trained_tokens,
        "longest": max(lengths),
        "lengths": histogram(lengths),
    }


def kept(output: Path, identity: dict) -> dict[str, Any] | None:
    """The manifest of a finished set of this identity; None: `output` is to be written.

    Raises:
        PrepareError: it holds something else than a tokenised set.
    """
    if (output / MANIFEST).is_file():
        manifest = read_object(output / MANIFEST, "identity", remedy=f"delete {output}")
        return manifest if manifest["identity"] == identity else None
    if output.exists() and any(output.iterdir()):
        raise PrepareError(f"{output}: exists and is not a tokenised set; choose another --out")
    return None


def write_set(
    output: str | Path,
    identity: dict,
    about: dict,
    rows: Iterable[tuple[Tokens, Tokens]],
    counts: dict[str, Any],
) -> dict[str, Any]:
    """Write rows of (input_ids, labels) as a set that sft.py trains on; returns its manifest, which is written last.

    Args:
        identity: what decides the content; a finished set of the same identity is kept, and `rows` is not touched.
        about: more for the manifest. counts: the same, read once the rows are through.

    Raises:
        PrepareError: `output` holds something else than a tokenised set.
        RunLocked: another process is writing it.
    """
    output, identity = Path(output), json.loads(json.dumps(identity))  # as it will be read back
    if manifest := kept(output, identity):  # also where nothing may be written
        return manifest
    with RunLock(output, beside=True):  # in the set it would be replaced with it
        if manifest := kept(output, identity):  # by now
            return manifest
        aside = output.with_name(f".{output.name}.partial")
        shard = aside.with_suffix(".arrow")  # beside it: a data set cannot be saved into the folder it is read from
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            new_manifest = {"identity": identity, **about, **_save(rows, shard, aside), **counts}
            write_json(aside / MANIFEST, new_manifest)
            shutil.rmtree(output, ignore_errors=True)
            aside.rename(output)
        finally:
            shard.unlink(missing_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
    return new_manifest


def _save(rows: Iterable[tuple[Tokens, Tokens]], shard: Path, folder: Path) -> dict[str, Any]:
    """Save rows by way of the file `shard`; returns their `sizes`."""
    lengths, trained_tokens = [], 0
    with ArrowWriter(features=FEATURES, path=str(shard), writer_batch_size=256) as writer:
        for ids, labels in rows:
            labels_T = np.asarray(labels, np.int32)
            writer.write({"input_ids": np.asarray(ids, np.int32), "labels": labels_T})
            lengths.append(len(ids))
            trained_tokens += int(np.count_nonzero(labels_T != -100))
        writer.finalize()
    Dataset.from_file(str(shard)).save_to_disk(folder)
    return sizes(lengths, trained_tokens)
