"""SQL that reads raw tables of text in the engine.

A value that it does not know for certain becomes NULL: then the rows are read in Python (`events.load`), which knows
more forms, or says what is wrong at which line.
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow.parquet

from alignxplore.datasets.engine import Engine, quoted, quoted_path
from alignxplore.datasets.rows import csv_rows
from alignxplore.records import RecordError

_TABLES = (".csv", ".parquet")  # forms that hold no JSON
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2} (?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"


def sql_table(path: Path, separator: str, columns: int, skip: int = 0) -> str:
    """A table of text in the order of the file's rows: columns c0, c1, ...

    Args:
        separator: between two fields; those of a CSV may stand in quotation marks.
        skip: lines at the start.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        end = r"\r\n" if file.readline().endswith(b"\r\n") else r"\n"
    names = ", ".join(f"c{place}: 'VARCHAR'" for place in range(columns))
    quote = quoted('"' if separator == "," else "")
    return (
        f"read_csv({quoted_path(path)}, columns = {{{names}}}, auto_detect = false, header = false, skip = {skip}, "
        f"delim = {quoted(separator)}, quote = {quote}, escape = {quote}, new_line = '{end}')"
    )


def sql_id(column: str) -> str:
    """`texts.table_id` of a column of printable ASCII. Most ids are numbers, which a cast knows faster than a regular
    expression: one that comes back as the same text is written in digits alone."""
    text = f"trim(coalesce({column}, ''))"
    return (
        f"CASE WHEN TRY_CAST({column} AS UBIGINT)::VARCHAR = {column} THEN {column} "
        f"WHEN NOT regexp_full_match({text}, '[ -~]*') THEN NULL "
        f"WHEN regexp_full_match({column}, '[0-9]+') THEN {column} "
        f"WHEN lower({text}) IN ('nan', 'none', 'null', '<na>') THEN '' "
        rf"ELSE regexp_replace({text}, '^([0-9]+)\.0*$', '\1') END"
    )


def sql_name(column: str) -> str:
    """A name of printable ASCII as it stands; "" where there is none."""
    return (
        f"CASE WHEN NOT regexp_full_match({column}, '[ -~]*') THEN NULL "
        f"WHEN lower(trim({column})) IN ('', 'nan', 'none', 'null', '<na>') THEN '' ELSE {column} END"
    )


def sql_whole(column: str) -> str:
    """A whole number, with .0 perhaps, as pandas may write it."""
    return (
        f"CASE WHEN TRY_CAST({column} AS UBIGINT)::VARCHAR = {column} THEN TRY_CAST({column} AS BIGINT) "
        f"WHEN regexp_full_match({column}, '[0-9]{{1,18}}') THEN {column}::BIGINT "
        rf"WHEN regexp_full_match({column}, '[0-9]{{1,18}}\.0*') THEN string_split({column}, '.')[1]::BIGINT END"
    )


def sql_seconds(column: str) -> str:
    """Seconds since 1970 of a column that holds them, or dates and times in UTC."""
    date = f"CASE WHEN regexp_full_match({column}, '{_DATE}') THEN epoch(TRY_CAST({column} AS TIMESTAMP))::BIGINT END"
    return f"coalesce({sql_whole(column)}, {date})"


def sql_stars(column: str, scale: tuple[float, float]) -> str:
    """`rows.number_of_stars` of a column."""
    number = f"TRY_CAST({column} AS DOUBLE)"
    return f"CASE WHEN {number} BETWEEN {scale[0]} AND {scale[1]} THEN {number} END"


def sql_json(path: Path, names: Sequence[str]) -> str | None:
    """SELECT of these columns of a JSONL, CSV or Parquet file as JSON, in the order of its rows; NULL where a row has
    none. None for a table that cannot be read like that."""
    form = path.name.removesuffix(".gz").rpartition(".")[2]
    if form not in ("csv", "parquet"):
        columns = ", ".join(f"{name}: 'JSON'" for name in names)
        return f"SELECT * FROM read_json({quoted_path(path)}, format = 'newline_delimited', columns = {{{columns}}})"
    if form == "parquet":
        source, value_of = f"read_parquet({quoted_path(path)})", {name: name for name in _parquet_names(path)}
    else:
        header = csv_header(path)
        value_of = {name: f"coalesce(c{place}, '')" for place, name in enumerate(header)}
        if len(value_of) < len(header) or not value_of.keys() & set(names):
            return None
        source = sql_table(path, ",", len(header), 1)
    values = (
        f"CASE WHEN {value_of[name]} IS NOT NULL THEN to_json({value_of[name]}) END"
        if name in value_of
        else "NULL::JSON"
        for name in names
    )
    return f"SELECT {', '.join(f'{value} AS {name}' for value, name in zip(values, names))} FROM {source}"


def json_is_plain(path: Path, engine: Engine) -> bool:
    """Whether the engine can be trusted with a JSONL file: it takes a comma before a closing bracket, which no other
    reader does."""
    if path.name.removesuffix(".gz").endswith(_TABLES):
        return True
    lines = (
        f"read_csv({quoted_path(path)}, columns = {{line: 'VARCHAR'}}, auto_detect = false, header = false, "
        "delim = '\x01', quote = '', escape = '')"
    )
    try:
        for (line,) in engine.rows(rf"SELECT line FROM {lines} WHERE regexp_matches(line, ',\s*[}}\]]')"):
            json.loads(line)
    except (ValueError, RecursionError, duckdb.Error):
        return False
    return True


def _parquet_names(path: Path) -> list[str]:
    try:
        return pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError):
        return []


def csv_header(path: Path) -> list[str]:
    """The names of a CSV file's columns, by its first line; none where it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            first_line = file.readline().decode("utf-8-sig", "replace")
            return [name.strip() for _, names in csv_rows([first_line], path) for name in names]
    except (EOFError, OSError, zlib.error, RecordError):
        return []  # whoever reads the rows says what is wrong
