"""Parquet files: tables of recordings that are read, and predictions that are written."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from avsc_e2e.errors import AvscError


def _package() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise AvscError("Parquet needs pyarrow, which is not installed: pip install 'avsc-e2e[ray]'") from None
    return pyarrow


def read_columns(path: str | os.PathLike[str]) -> list[list[str]]:
    """The names of a file's columns, then the cells of each row as text, empty for null. Raises AvscError."""
    pyarrow = _package()
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (OSError, pyarrow.ArrowException) as error:
        told = " ".join(str(error).split())[:200]
        raise AvscError(f"{path}: cannot be read as Parquet ({told}): write it anew, or give a CSV") from None
    columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    return [list(table.column_names), *(list(row) for row in zip(*columns, strict=True))]


def parquet_bytes(columns: Mapping[str, Sequence[Any]], kinds: Mapping[str, str], about: Mapping[str, str]) -> bytes:
    """A file of columns of equal length, of the types (pyarrow's names, such as "string" and "float64") of `kinds`,
    that carries the texts of `about`. Equal values give equal bytes."""
    pyarrow = _package()
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kinds[name])) for name in columns], metadata=dict(about))
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(dict(columns), schema=schema), file, compression="zstd")
    return file.getvalue()


def parquet_about(data: bytes, name: str) -> str:
    """The text that a file of `parquet_bytes` carries under a name. Raises AvscError where it is none."""
    pyarrow = _package()
    try:
        return pyarrow.parquet.read_metadata(io.BytesIO(data)).metadata[name.encode()].decode()
    except (pyarrow.ArrowException, KeyError, TypeError) as error:
        raise AvscError(f"a part is damaged ({' '.join(str(error).split())[:100]}): delete it and run again") from None
