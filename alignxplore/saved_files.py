"""How long the files of a checkpoint are once all of them are written, and whether they still are: one that was cut is
named before anything is loaded."""

import os
from pathlib import Path

from alignxplore.records import RecordError


def sizes_of(folder: Path, mark: str) -> dict[str, int]:
    """Bytes of each file, by its path in the folder; `mark` is the file that will hold these lengths.

    Each is opened: only then does a network's disk ask its server how long a file is that another machine wrote.
    """
    sizes = {}
    for file in folder.rglob("*"):
        if file.is_file() and file.name != mark:
            with file.open("rb") as stream:
                sizes[str(file.relative_to(folder))] = os.fstat(stream.fileno()).st_size
    return sizes


def damage(mark: Path, sizes: object, remedy: str) -> str | None:
    """What there is to say of the first file beside `mark` that is not as long as it was; None: all are.

    Raises:
        RecordError: `sizes`, as `mark` holds them, are none.
    """
    if not isinstance(sizes, dict) or not all(isinstance(size, int) for size in sizes.values()):
        raise RecordError(f"expected lengths of files; {remedy}", mark, field="sizes")
    for name, size in sizes.items():
        file = mark.parent / name
        if not file.is_file():
            return f"{file}: damaged since it was saved (gone); {remedy}"
        if file.stat().st_size != size:
            return f"{file}: damaged since it was saved ({file.stat().st_size:,} bytes of {size:,}); {remedy}"
    return None
