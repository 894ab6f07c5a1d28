"""Inputs in a file: one sequence [T, features] from .npy, .csv or .parquet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.app.storage import load_array
from lstmx.arrays import require


def read_table(path: Path, size: int, dtype: Any, cast: bool = False) -> tuple[np.ndarray, str]:
    """One sequence of inputs [T, size], and in words what became of its numbers; steps are the rows.

    Args:
        path: an .npy of float32 or float64; a .csv, numbers separated by commas, with a line of names above them
            or without; or a .parquet, whose columns are the features.
        size: features that the weights read.
        dtype: of the weights; float32 and float64 are cast to it, which the words say.
        cast: cast other numbers to it, too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as numbers, or is no single sequence of so many features.
        TypeError: numbers of another dtype, and `cast` is not asked for.
        ImportError: pyarrow, which reads .parquet, is not installed.
    """
    xs, names = TABLES[path.suffix.lower()](path)
    if xs.ndim != 2:
        hint = " Of a batch, give one sequence, as xs[:, 0] where time is first." if xs.ndim == 3 else ""
        raise ValueError(f"{path} has shape {xs.shape}; expected one sequence [T, {size}].{hint}")
    if xs.shape[1] != size:
        held = f"the columns {', '.join(map(repr, names))}" if names else f"{xs.shape[1]} columns"
        hint = " Its first column has no name, as an index has: leave it out." if names[:1] == [""] else ""
        raise ValueError(
            f"{path} has {held}; the layer reads {size} features.{hint} Inputs are those of the layer, and not of "
            "the model around it: in Python, record_torch, record_keras, record_flax and record_onnx run a model"
        )
    words = f", below its line of names {', '.join(names)}" if names and all(map(is_number, names)) else ""
    if xs.dtype != dtype and (cast or xs.dtype in ("float32", "float64")):
        return xs.astype(dtype), f"{words}, cast from {xs.dtype} to {dtype}"
    if xs.dtype != dtype:
        raise TypeError(f"{path} is {xs.dtype}; expected numbers of {dtype}: --dtype {dtype} casts them")
    return xs, words


def _npy(path: Path) -> tuple[np.ndarray, list[str]]:
    return load_array(path), []


def _csv(path: Path) -> tuple[np.ndarray, list[str]]:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{path} is empty; expected a line of numbers for each step")
    names = [name.strip() for name in lines[0].split(",")]
    header = not any(map(is_number, names)) or (
        all(name.isdigit() for name in names) and any(re.search(r"[.eE]|nan", line) for line in lines[1:])
    )  # numbers as names, as pandas writes them: integers above numbers that are none
    if header and len(lines) == 1:
        raise ValueError(f"{path} has one line, {lines[0][:60]!r}, which holds no number; expected commas between")
    try:
        xs = np.loadtxt(lines[int(header) :], delimiter=",", ndmin=2, dtype="float64", comments=None)
    except ValueError as error:
        above = "below its line of names" if header else "from its first line on"
        raise ValueError(f"{path} is no table of numbers between commas {above}: {error}") from error
    return xs, names if header else []


def is_number(text: str) -> bool:
    """Whether Python reads this as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> tuple[np.ndarray, list[str]]:
    parquet = require("pyarrow.parquet", "reading a .parquet file")
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # of pyarrow
        raise ValueError(f"{path} is no readable .parquet file: {str(error).splitlines()[0]}") from error
    columns = {name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)}
    words = [name for name, column in columns.items() if column.dtype.kind not in "iuf"]
    if words or not columns:
        held = f"no numbers in the column {words[0]!r}" if words else "no columns"
        raise ValueError(f"{path} has {held}; expected numbers alone, a column for each feature")
    xs = np.stack(list(columns.values()), axis=1)
    return xs.astype(np.result_type(xs, "float32"), copy=False), list(columns)


TABLES = {".npy": _npy, ".csv": _csv, ".parquet": _parquet}
"""What reads a table with the names of its columns, by the end of a file's name."""
