"""Files of Keras: whole models as Keras 3 and Keras 2 wrote them, and weights alone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.app.choices import Choices
from lstmx.app.storage import DEFLATED, parsed
from lstmx.arrays import require
from lstmx.cells import SimpleRNN
from lstmx.convert.keras import cells_of, from_arrays, from_keras, recurrent_layers
from lstmx.convert.named import Named
from lstmx.layers import Bidirectional, Directions

_NAMES = ("kernel", "recurrent_kernel", "bias")
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies", "cell", "cells")
_FEATURES = 10**6  # of an input, above which a damaged description is more likely
_OWN_CLASS = re.compile(r"Could not locate class '(\w+)'|Unknown layer: '(\w+)'")


Read = Callable[[], tuple[Any, Any]]
Arrays = dict[str, np.ndarray]


def keras_readers(path: str | Path, choices: Choices) -> dict[str, Read]:
    """The recurrent layers of a file of Keras by name, each with what reads it.

    Args:
        path: a .keras or .h5 file.
        choices: the nonlinearity of weights alone, and the dtype.

    Raises:
        ValueError: the file cannot be read, or has a layer that Keras 3 cannot build.
        ImportError: Keras is not installed, or h5py, which it needs for this.
    """
    choices.without(path, "reset")
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras' own default is a package that lstmx does not need
    keras = require("keras", f"reading a {Path(path).suffix} file")
    if Path(path).suffix.lower() == ".keras":
        return _readers(path, _of_archive(keras, path), choices)
    h5py = require("h5py", "reading an .h5 file")
    try:
        with h5py.File(path) as file:
            config, version = file.attrs.get("model_config"), _text(file.attrs.get("keras_version", "2"))
            held = _numbers(path, file)
            found = None if config is not None else _weights_alone(file)
    except OSError as error:
        raise ValueError(f"{path} is no readable .h5 file: {str(error).splitlines()[0]}") from error
    if found is not None:
        return _readers_of_arrays(path, found, choices)
    described = _in_words_of_keras_3(path, _text(config), held)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, Path(folder) / "model.h5")
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = described
        model = _loaded(keras, copy, path)
    return _readers(path, _of_version(keras, model, version), choices)


def _of_archive(keras: Any, path: str | Path) -> Any:
    """The model in a .keras file, of Keras 3 or of 2.12 and later."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        version = str(parsed(_text(files["metadata.json"]))["keras_version"])
        weights = files["model.weights.h5"]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is cut short, or no .keras file: {error}") from error
    try:
        with require("h5py", "reading a .keras file").File(io.BytesIO(weights)) as file:
            held = _numbers(path, file)
    except OSError as error:
        raise ValueError(f"{path} holds no readable weights: {str(error).splitlines()[0]}") from error
    described = _in_words_of_keras_3(path, _text(files.get("config.json", b"null")), held)
    if not version.startswith("2"):
        return _loaded(keras, path, path)
    files["config.json"] = described.encode()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        with zipfile.ZipFile(copy, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        model = _loaded(keras, copy, path)
    return _of_version(keras, model, version)


def _in_words_of_keras_3(path: str | Path, config: str, held: int) -> str:
    """A model's description as Keras 3 has it; `held` numbers are in the file."""
    try:
        tree = parsed(config)
        layers = list(_layers(tree))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a description of its model that cannot be read: {error}") from error
    for layer in layers:
        _fits(path, layer, held)
        _as_keras_3(path, layer)
    return json.dumps(tree)


def _numbers(path: str | Path, file: Any) -> int:
    """How many numbers the arrays of an open .h5 file hold.

    Raises:
        ValueError: one is said to be larger than the file has bytes for.
    """
    sizes = [0]

    def visit(where: str, item: Any) -> None:
        if hasattr(item, "shape"):
            stored = DEFLATED * item.id.get_storage_size() if item.chunks else item.id.get_storage_size()
            if item.shape and item.size * item.dtype.itemsize > stored:
                raise ValueError(f"{path}: {where} is said to be {item.shape}, and the file does not hold as much")
            sizes.append(item.size or 0)

    file.visititems(visit)
    return sum(sizes)


def _fits(path: str | Path, layer: dict[str, Any], held: int) -> None:
    """Raise ValueError before a layer is built that has more parameters than there are numbers in the file."""
    config, built = layer["config"], layer.get("build_config")
    units, name = config.get("units"), config.get("name")
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    shape = (built.get("input_shape") if isinstance(built, dict) else None) or shape
    features = shape[-1] if isinstance(shape, list) and shape and isinstance(shape[-1], int) else 1
    if isinstance(units, int):
        recurrent = layer["class_name"].startswith(("LSTM", "GRU", "SimpleRNN"))
        least = units * max(features, units if recurrent else 1)
    else:
        # an input that no layer reads by weights, as an image, may be larger than all weights, within reason
        least = features if layer["class_name"] == "InputLayer" and features > _FEATURES else 0
    if least > held:
        said = f"units={units}" if isinstance(units, int) else f"{features} features"
        raise ValueError(f"{path}: {name} has {said}, and the file holds {held:,} numbers in all: it is damaged")


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


# ------------------------------------------------------------------------------------------------ whole models


def _loaded(keras: Any, file: str | Path, path: str | Path) -> Any:
    """The model in a file, which errors call `path`."""
    try:
        return keras.models.load_model(file, compile=False)
    except Exception as error:  # of h5py, of zipfile, of Keras
        words = str(error)
        if own := _OWN_CLASS.search(words):
            raise ValueError(
                f"{path} has a layer of the class {own[1] or own[2]}, whose code is not in it: in Python, load it "
                "by keras.models.load_model(path, custom_objects={...}), and convert its recurrent layer "
                "by lstmx.convert.from_keras or record it by lstmx.record_keras"
            ) from error
        raise ValueError(f"{path} holds no whole model of Keras: {words.splitlines()[0]}") from error


def _readers(path: str | Path, model: Any, choices: Choices) -> dict[str, Read]:
    choices.without(path, "nonlinearity")
    return {name: lambda one=one: from_keras(one, choices.dtype) for name, one in recurrent_layers(model).items()}


def _layers(tree: Any) -> Iterator[dict[str, Any]]:
    """The descriptions of layers in a model's configuration, one in another."""
    if isinstance(tree, dict):
        if "class_name" in tree and isinstance(tree.get("config"), dict):
            yield tree
        tree = list(tree.values())
    for part in tree if isinstance(tree, list) else ():
        yield from _layers(part)


def _as_keras_3(path: str | Path, layer: dict[str, Any]) -> None:
    """Say in a layer's description, in place, what an older Keras meant by it, in the words of Keras 3."""
    kind, config = layer["class_name"], layer["config"]
    if kind in ("CuDNNLSTM", "CuDNNGRU"):
        raise ValueError(
            f"{path}: {config.get('name')} is a {kind}, which Keras 3 has not; in Keras 2, load the weights into "
            f"the same model with {kind.removeprefix('CuDNN')} in its place "
            f"({'reset_after=True, ' if kind == 'CuDNNGRU' else ''}recurrent_activation='sigmoid'), and save that"
        )
    if kind == "GRU":
        config.setdefault("reset_after", False)  # before there was a choice
    if config.pop("time_major", False):
        raise ValueError(
            f"{path}: {config.get('name')} has time_major=True, which Keras 3 has not; save the model without it"
        )


def _of_version(keras: Any, model: Any, version: str) -> Any:
    """The model, its cells with the hard sigmoid of its version: in Keras 2 the slope is 1/5 and not 1/6."""
    if not version.startswith(("1", "2")):
        return model

    def hard_sigmoid_of_keras_2(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0, 1)

    for cell in (cell for layer in recurrent_layers(model).values() for cell in cells_of(layer)):
        for name in ("activation", "recurrent_activation"):
            if getattr(cell, name, None) is keras.activations.hard_sigmoid:
                setattr(cell, name, hard_sigmoid_of_keras_2)
    return model


# ----------------------------------------------------------------------------------------------- weights alone


def _weights_alone(file: Any) -> dict[str, Arrays]:
    """The arrays of each recurrent cell, by the name of its layer, as Keras 3 or Keras 2 wrote them."""
    found: dict[str, Arrays] = {}

    def visit(where: str, item: Any) -> None:
        *path, last = where.split("/")
        if not hasattr(item, "shape"):
            return
        if path[-1:] == ["vars"]:  # of Keras 3, which numbers the arrays of a layer
            own = [part for part in path[:-1] if part not in _CONTAINERS] if "cell" in path else []
            last = dict(enumerate(_NAMES)).get(int(last), last) if last.isdigit() else last
        else:  # of Keras 2, below the layer's name once more
            own = path[1:] if path[:1] == path[1:2] else path
        if own:
            value = np.asarray(item)
            if item.attrs.get("dtype") == "bfloat16" or value.dtype.kind == "V":  # two bytes, as Keras writes it
                value = value.view(require("ml_dtypes", "reading bfloat16").bfloat16)
            found.setdefault("/".join(own), {})[last.removesuffix(":0")] = value

    file.visititems(visit)
    found = {name: arrays for name, arrays in found.items() if "recurrent_kernel" in arrays}
    short = {name: re.sub(r"/[^/]*_cell(_\d+)?$", "", name) for name in found}
    single = [name for name in found if list(short.values()).count(short[name]) == 1]
    return {short[name] if name in single else name: arrays for name, arrays in found.items()}


def _readers_of_arrays(path: str | Path, found: dict[str, Arrays], choices: Choices) -> dict[str, Read]:
    """What reads each cell, two directions as one."""
    readers: dict[str, Read] = {}
    for name in found:
        layer, _, direction = name.rpartition("/")
        kind = direction.partition("_")[2]
        pair = [f"{layer}/{side}_{kind}" for side in ("forward", "backward")]
        if layer and name in pair and set(pair) <= set(found):
            readers[layer] = lambda layer=layer, pair=pair: _two_cells(
                path, layer, [found[one] for one in pair], choices
            )
        else:
            readers[name] = lambda name=name: _one_cell(path, name, found[name], choices)
    return readers


def _one_cell(path: str | Path, name: str, arrays: Arrays, choices: Choices) -> tuple[Any, Any]:
    cell, params = _of_arrays(path, name, arrays, choices)
    choices.tell(f"{path} holds weights alone: {name} is taken to read forwards, as {_with_functions(cell)}")
    return cell, params


def _two_cells(path: str | Path, name: str, pair: list[Arrays], choices: Choices) -> tuple[Any, Any]:
    (cell, forward), (other, backward) = (_of_arrays(path, name, arrays, choices) for arrays in pair)
    if cell != other:
        raise ValueError(f"{path}: the directions of {name} differ: {cell} and {other}")
    choices.tell(
        f"{path} holds weights alone: {name} is taken to read in both directions and to concatenate them, each as "
        f"{_with_functions(cell)}"
    )
    return Bidirectional(cell), Directions(forward, backward)


def _with_functions(cell: Any) -> str:
    if isinstance(cell, SimpleRNN):
        return f"{cell!r} with {cell.activation} (--nonlinearity tanh or relu)"
    return f"{cell!r} with {cell.candidate_activation} (--nonlinearity tanh or relu) and sigmoid"


def _of_arrays(path: str | Path, name: str, arrays: Arrays, choices: Choices) -> tuple[Any, Any]:
    """A cell from its arrays, whose shapes say its kind.

    Raises:
        ValueError: they do not.
    """
    named = Named(f"{path}: {name}", arrays, choices.dtype)
    h, columns = named.take("recurrent_kernel", (None, None)).shape
    kind = {4 * h: "LSTM", 3 * h: "GRU", h: "SimpleRNN"}.get(columns)
    what = f"{path} holds weights alone, and {name} has a recurrent kernel {(h, columns)}"
    if kind is None:
        raise ValueError(f"{what}; expected [H, 4H] of an LSTM, [H, 3H] of a GRU or [H, H] of a SimpleRNN")
    if kind == "GRU" and "bias" not in named:
        raise ValueError(
            f"{what} and no bias: whether it is a GRU with reset_after=True is not known. Build the model in "
            "Python, load_weights, and save it whole as .keras"
        )
    activation, after = choices.nonlinearity or "tanh", kind == "GRU" and arrays["bias"].ndim == 2
    return from_arrays(named, kind, activation, reset_after=after)
