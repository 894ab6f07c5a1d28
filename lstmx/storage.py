"""Parameters and histories as NumPy archives, read and written without pickle."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.cells import Cell
from lstmx.checks import parameters
from lstmx.description import PLAIN
from lstmx.history import History

_EXTRAS = ("readout_kernel", "readout_bias", "vocabulary")


def save_parameters(path: str | Path, cell: Cell, params: Any, **extras: Any) -> None:
    """Write a cell's options and parameters to an .npz archive.

    Args:
        path: the file, overwritten.
        cell: the cell.
        params: its parameters.
        **extras: arrays to keep beside them: readout_kernel, readout_bias, vocabulary.

    Raises:
        TypeError: an extra of another name.
    """
    parameters(cell, params)
    surplus = sorted(set(extras) - set(_EXTRAS))
    if surplus:
        raise TypeError(f"unknown extra arrays {', '.join(surplus)}; expected some of {', '.join(_EXTRAS)}")
    description = json.dumps({"cell": type(cell).__name__, "options": dataclasses.asdict(cell)})  # type: ignore  # every cell is a dataclass
    arrays = {name: np.asarray(array) for name, array in params._asdict().items() if array is not None}
    np.savez(path, description=np.array(description), **arrays, **extras)


def load_parameters(path: str | Path) -> tuple[Cell, Any]:
    """Read a cell and its parameters from an .npz archive, as NumPy arrays.

    The archive is one that `save_parameters` wrote, or any that holds a cell's arrays under their names:
    input_kernel [D, 4H], recurrent_kernel [H, 4H] and bias [4H] for an LSTM; the same with 3H, and
    candidate_bias [H], for a GRU; with H for a SimpleRNN.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no .npz archive, an array is missing, surplus or of another shape.
        TypeError: an array of another dtype than float32 or float64.
    """
    arrays = _read(path)
    description = arrays.pop("description", None)
    named = {name: array for name, array in arrays.items() if name not in _EXTRAS}
    name = json.loads(str(description))["cell"] if description is not None else _guess(path, named)
    if name not in PLAIN:
        raise ValueError(f"{path} holds a cell {name!r}; this version knows {', '.join(PLAIN)}")
    options = json.loads(str(description))["options"] if description is not None else {}
    kernels = [named[field] for field in ("input_kernel", "recurrent_kernel") if field in named]
    if any(kernel.ndim != 2 for kernel in kernels):
        raise ValueError(f"{path}: kernels have {[k.ndim for k in kernels]} axes; expected 2")
    sizes: dict[str, int] = {}
    if description is None and len(kernels) == 2:
        sizes = {"input_size": len(kernels[0]), "hidden_size": len(kernels[1])}
    cell: Any = PLAIN[name](**{"input_size": 1, "hidden_size": 1, **options, **sizes})
    shapes = cell.parameter_shapes()
    expected = [field for field, shape in shapes._asdict().items() if shape is not None]
    missing, surplus = set(expected) - set(named), set(named) - set(expected)
    if missing or surplus:
        what = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        what += [f"has surplus {', '.join(sorted(surplus))}"] if surplus else []
        raise ValueError(f"{path} {' and '.join(what)}; a {name} has {', '.join(expected)}")
    params = type(shapes)(**named)
    parameters(cell, params)
    return cell, params


def save_history(path: str | Path, history: History, **extras: Any) -> None:
    """Write what a history recorded to an .npz archive of named arrays.

    It holds `inputs`, `preactivations`, each state field as `hidden_state` (and `cell_state`), each gate under
    its name, and the extras; all [T, *batch, ...] as in the history.
    """
    arrays = {f"{name}_state": value for name, value in history.states._asdict().items()}
    arrays |= history.gates._asdict()
    arrays |= {"inputs": history.inputs, "preactivations": history.preactivations}
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()}, **extras)


def load_array(path: str | Path) -> np.ndarray:
    """Read one array from an .npy file, without pickle.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no .npy file, or holds Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npy file of numbers: {error}") from error
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path} is an archive of several arrays; expected a single .npy array")
    return loaded


def _read(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz archive of arrays: {error}") from error


def _guess(path: str | Path, arrays: dict[str, np.ndarray]) -> str:
    """The cell that arrays without a description belong to, by their names and shapes."""
    if "candidate_bias" in arrays:
        return "GRU"
    kernel = arrays.get("recurrent_kernel")
    if kernel is None or kernel.ndim != 2 or kernel.shape[0] == 0:
        raise ValueError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected recurrent_kernel [H, 4H] or [H, H]"
        )
    return "SimpleRNN" if kernel.shape[0] == kernel.shape[1] else "LSTM"
