"""Cells with their parameters as safetensors, and what else is read from and written to files, without pickle."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import Array, require
from lstmx.cells.description import CELLS, cell_from, described
from lstmx.checks import parameters
from lstmx.checks import path as checked_path
from lstmx.draws import in_library
from lstmx.files import written_whole
from lstmx.history import History
from lstmx.layers import KINDS, Layers

_FORMAT = 1
DEFLATED = 1032  # bytes that one byte of an archive stands for at most
EXTRA = "extra."  # begins the names of arrays that are no parameters


def save(path: str | Path, cell: Any, params: Any) -> None:
    """Write a cell or layers with their parameters to a safetensors file.

    The file holds the parameters under their names (`recurrent_kernel`; in layers `0.recurrent_kernel`,
    `1.forward.bias`, ...), and in its metadata the options of every cell and a format version. It takes the place
    of an older one only when it is whole.

    Args:
        path: the file, overwritten.
        cell: the cell, or a `Stack` or `Bidirectional` of cells.
        params: its parameters, of NumPy or JAX.

    Raises:
        TypeError: this is no cell of lstmx, or the parameters are not its own.
        ValueError: a parameter has another shape than the cell expects.
        ImportError: safetensors is not installed.

    Example:
        >>> import lstmx, numpy, tempfile
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8, peepholes=True)
        >>> path = tempfile.mkdtemp() + "/lstm.safetensors"
        >>> lstmx.save(path, cell, cell.init(numpy.random.default_rng(0)))
        >>> lstmx.load(path)[0] == cell
        True
    """
    save_with(checked_path("path", path), cell, params, {})


def save_with(path: str | Path, cell: Any, params: Any, extras: dict[str, Array]) -> None:
    """As `save`, with further arrays beside the parameters, which `load` leaves out."""
    parameters(cell, params)
    words = {"lstmx": str(_FORMAT), "cell": json.dumps(described(cell, KINDS))}
    tensors = _flat(cell, params) | {f"{EXTRA}{name}": array for name, array in extras.items()}
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    whole = require("safetensors.numpy", "saving parameters", "safetensors").save(tensors, metadata=words)
    with written_whole(path) as file:
        file.write(whole)


def load(path: str | Path, library: str | None = None) -> tuple[Any, Any]:
    """Read a cell or layers with their parameters from a file that `save` wrote.

    Args:
        path: the file.
        library: "jax" or "numpy", of the parameters; None for JAX where it is installed, as an integer seed is.

    Returns:
        The cell, or the layers, and the parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another word; the file is cut short or no safetensors file, or one that `save` did not write or
            a newer version wrote; an array is missing, surplus or of another shape; or float64 for JAX without x64
            enabled.
        TypeError: an array of another dtype than float32 or float64.
        ImportError: safetensors, or JAX where it was asked for, is not installed.
    """
    words, tensors = read_safetensors(checked_path("path", path))
    if "lstmx" not in words:
        raise ValueError(
            f"{path} holds no cell of lstmx, but {', '.join(tensors) or 'no arrays'}; weights of other frameworks "
            "are read by lstmx.convert"
        )
    if words["lstmx"] != str(_FORMAT):
        raise ValueError(f"{path} is of format {words['lstmx']}; this version of lstmx reads format {_FORMAT}")
    try:
        cell = cell_from(parsed(words.get("cell", "null")), KINDS)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    named = {name: array for name, array in tensors.items() if not name.startswith(EXTRA)}
    try:
        params = _nested(cell, named)
        parameters(cell, params)
        return cell, in_library(params, library)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from error


def read_safetensors(
    path: str | Path, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata of any safetensors file, and those of its arrays whose names are `wanted`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, or none; or it is a folder.
        TypeError: it holds bfloat16, and JAX is not installed; or numbers of eight bits.
        ImportError: safetensors is not installed.
    """
    safetensors = require("safetensors", "reading a .safetensors file")
    if Path(path).is_dir():
        raise ValueError(
            f"{path} is a folder; expected a .safetensors file. A folder that history.save or record_to wrote is "
            "opened by lstmx.load_history"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = filter(wanted, file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is cut short, or no safetensors file: {error}") from error
    except AttributeError as error:  # of a dtype that NumPy has not
        raise TypeError(
            f"{path} holds numbers that quantisation stores ({error}): take the model before it was quantised"
        ) from error
    except TypeError as error:  # NumPy knows bfloat16 where JAX is installed
        raise TypeError(
            f"{path} holds numbers that NumPy lacks ({error}): save {{k: v.float() for k, v in state.items()}}, "
            "or install JAX"
        ) from error


def parsed(text: str) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: it is none, or nests deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep to be read") from error


def _flat(cell: Any, params: Any) -> dict[str, Array]:
    """The parameters of a cell or layers by name."""
    if not isinstance(cell, Layers):
        return {name: array for name, array in params._asdict().items() if array is not None}
    return {
        f"{key}.{name}": array
        for key, part, own in zip(_keys(cell), cell.parts.values(), params, strict=True)
        for name, array in _flat(part, own).items()
    }


def _nested(cell: Any, named: Mapping[str, Array], prefix: str = "") -> Any:
    """What `_flat` took apart; `named` holds nothing else.

    Raises:
        ValueError: an array is missing or surplus.
    """
    if isinstance(cell, Layers):
        keys = _keys(cell)
        parts: dict[str, dict[str, Array]] = {key: {} for key in keys}
        for name, array in named.items():
            key, _, rest = name.partition(".")
            if key not in parts:
                raise ValueError(f"surplus {prefix}{name}; {cell} has {', '.join(f'{key}.…' for key in keys)}")
            parts[key][rest] = array
        own = zip(keys, cell.parts.values(), strict=True)
        return cell.tree([_nested(part, parts[key], f"{prefix}{key}.") for key, part in own])
    shapes = cell.parameter_shapes()
    expected = [field for field, shape in shapes._asdict().items() if shape is not None]
    missing, surplus = set(expected) - set(named), set(named) - set(expected)
    if missing or surplus:
        what = [f"lacks {', '.join(prefix + name for name in sorted(missing))}"] if missing else []
        what += [f"has surplus {', '.join(prefix + name for name in sorted(surplus))}"] if surplus else []
        raise ValueError(f"{' and '.join(what)}; {cell} has {', '.join(expected)}")
    return type(shapes)(**named)


def _keys(layers: Layers) -> list[str]:
    """What the names of each part's arrays begin with."""
    return [name.removeprefix("layer ") for name in layers.parts]


# ------------------------------------------------------------------------------------------- NumPy's own files


def load_parameters(path: str | Path) -> tuple[Any, Any]:
    """A cell and its parameters from an .npz archive of arrays under their names, as NumPy arrays.

    These are input_kernel [D, 4H], recurrent_kernel [H, 4H] and bias [4H] for an LSTM; the same with 3H, and
    candidate_bias [H], for a GRU; with H for a SimpleRNN.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no .npz archive, an array is missing, surplus or of another shape.
        TypeError: an array of another dtype than float32 or float64.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    if file.peek(6).startswith(np.lib.format.MAGIC_PREFIX):  # type: ignore  # a ZipExtFile
                        _held(member.filename, file, min(member.file_size, DEFLATED * member.compress_size))
        with np.load(path, allow_pickle=False) as archive:
            named = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz archive of arrays: {error}") from error
    others = [name for name, value in named.items() if not isinstance(value, np.ndarray)]
    if others:
        raise ValueError(f"{path} holds {others[0]!r}, which is no array")
    kind = CELLS[_guess(path, named)]
    kernels = [named[field] for field in ("input_kernel", "recurrent_kernel") if field in named]
    if any(kernel.ndim != 2 for kernel in kernels):
        raise ValueError(f"{path}: kernels have {[k.ndim for k in kernels]} axes; expected 2")
    cell = kind(*(max(1, len(kernel)) for kernel in kernels)) if len(kernels) == 2 else kind(1, 1)
    try:
        params = _nested(cell, named)
        parameters(cell, params)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from error
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
        with Path(path).open("rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                _held("it", file, Path(path).stat().st_size)
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npy file of numbers: {error}") from error
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path} is an archive of several arrays; expected a single .npy array")
    return loaded


def _held(name: str, file: Any, size: int) -> None:
    """Raise ValueError where the header of an .npy file of `size` bytes says more numbers than it holds."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of version {version} of the format; expected an array of numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} is said to be {shape} of {dtype}, and the file has {size:,} bytes for it")


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
