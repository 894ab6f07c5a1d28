"""Somebody's trained model in a file: the recurrent layers it holds, whatever wrote it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.app.flax_files import flax_readers, refuse_equinox
from lstmx.app.storage import EXTRA, load, load_parameters, read_safetensors
from lstmx.arrays import map_tree, require
from lstmx.convert import from_keras, from_onnx, from_torch
from lstmx.convert.keras import recurrent_layers
from lstmx.convert.named import chosen
from lstmx.convert.onnx import recurrent_nodes

_RECURRENT = re.compile(r"^(?P<prefix>.*?)weight_hh(_l0)?$")

Readers = dict[str, Callable[[], tuple[Any, Any]]]
"""The recurrent modules of a file by name, each with what reads it."""


def read_weights(path: str | Path, layer: str | None = None) -> tuple[Any, Any, str]:
    """A recurrent module from a file of weights, with parameters in NumPy.

    Args:
        path: what `lstmx.save` wrote, or any .safetensors or .pt with PyTorch's names; .keras or .h5, a whole
            model of Keras; .onnx; .msgpack of Flax, or a folder of Orbax; or an .npz of a cell's arrays under
            their names.
        layer: name of the module, or of one of its layers as "name: layer 0", where there are several.

    Returns:
        The cell, or the layers, with the parameters, and its name in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or one that cannot be read; no recurrent module in it, or several of
            which none is named.
        TypeError: arrays of another dtype than float32 or float64.
        ImportError: the package that reads such files is not installed.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}")
    suffix = Path(path).suffix.lower()
    if Path(path).is_dir():
        found = _flax(path)
    elif suffix in _KINDS:
        found = _KINDS[suffix](path)
    else:
        raise ValueError(f"{path} ends in {suffix or 'nothing'}; expected one of {', '.join(_KINDS)}")
    name, read = chosen(str(path), found, None if layer is None else layer.partition(": ")[0], "--layer")
    cell, params = read()
    return cell, map_tree(np.asarray, params), name


def vocabulary_of(path: str | Path) -> str | None:
    """The characters that a model of the deep dive reads, in the order of its features; None of another file."""
    if Path(path).suffix.lower() != ".safetensors":
        return None
    found = read_safetensors(path, lambda name: name == f"{EXTRA}vocabulary")[1]
    return "".join(map(chr, *found.values())) if found else None


def _safetensors(path: str | Path) -> Readers:
    if "lstmx" in read_safetensors(path, lambda name: False)[0]:
        return {"": lambda: load(path, "numpy")}
    return _state_dict(read_safetensors(path)[1])


def _torch(path: str | Path) -> Readers:
    torch = require("torch", "reading a .pt file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, of zipfile, of PyTorch
        raise ValueError(
            f"{path} holds no plain weights, or is cut short; save model.state_dict() and not the model: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return _state_dict(_flat(loaded))


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The tensors in dicts in dicts, their names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif hasattr(value, "shape"):
            found[f"{prefix}{name}"] = value
    return found


def _state_dict(arrays: dict[str, Any]) -> Readers:
    prefixes = {match["prefix"]: None for name in arrays if (match := _RECURRENT.match(name))}

    def reader(prefix: str) -> Callable[[], tuple[Any, Any]]:
        own = re.compile(re.escape(prefix) + r"(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?$")
        return lambda: from_torch({name: x for name, x in arrays.items() if own.match(name)}, prefix)

    return {prefix.removesuffix("."): reader(prefix) for prefix in prefixes}


def _keras(path: str | Path) -> Readers:
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras' own default is a package that lstmx does not need
    models = require("keras", f"reading a {Path(path).suffix} file").models
    try:
        model = models.load_model(path, compile=False)
    except Exception as error:  # of h5py, of zipfile, of Keras
        raise ValueError(f"{path} holds no whole model of Keras: {str(error).splitlines()[0]}") from error
    return {name: lambda one=one: from_keras(one) for name, one in recurrent_layers(model).items()}


def _onnx(path: str | Path) -> Readers:
    onnx = require("onnx", "reading an .onnx file")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # of protobuf
        raise ValueError(f"{path} is no readable model of ONNX: {str(error).splitlines()[0]}") from error
    return {name: lambda name=name: from_onnx(model, name) for name in recurrent_nodes(model)}


def _flax(path: str | Path) -> Readers:
    return flax_readers(path, lambda words: warnings.warn(f"{path}: {words}", stacklevel=2))


def _npz(path: str | Path) -> Readers:
    return {"": lambda: load_parameters(path)}


_KINDS: dict[str, Callable[[str | Path], Readers]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".keras": _keras,
    ".h5": _keras,
    ".onnx": _onnx,
    ".msgpack": _flax,
    ".eqx": refuse_equinox,
    ".npz": _npz,
}


def features_of_text(text: str, size: int, vocabulary: str | None) -> tuple[np.ndarray, str]:
    """The one-hot inputs [T, size] that a character model reads in a text, and in words how they were made.

    Args:
        text: the text.
        size: features of the model.
        vocabulary: its characters in the order of the features; None where the file does not say them: then the
            bytes of the text for 256 features, else its own characters in order where there are as many.

    Raises:
        ValueError: a character is not in the vocabulary, or the features cannot be guessed.
    """
    if vocabulary is not None:
        missing = sorted(set(text) - set(vocabulary))
        if missing:
            raise ValueError(f"the text has {missing[0]!r}, which the model's {len(vocabulary)} characters lack")
        codes, words = [vocabulary.index(character) for character in text], "characters of the model's vocabulary"
    elif size == 256:
        codes, words = list(text.encode("utf-8")), "bytes of the text"
    else:
        own = sorted(set(text))
        if len(own) != size:
            raise ValueError(
                f"the layer reads {size} features, and the text has {len(own)} different characters: which is "
                "which is not known. Give the inputs as .npy, [T, features]"
            )
        codes, words = [own.index(character) for character in text], "the text's own characters in order"
    return np.eye(size, dtype="float32")[codes], words
