"""Somebody's trained model in a file: the recurrent layers it holds, whatever wrote it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.app.choices import Choices
from lstmx.app.flax_files import flax_readers, refuse_equinox
from lstmx.app.keras_files import keras_readers
from lstmx.app.storage import EXTRA, load, load_parameters, read_safetensors
from lstmx.arrays import map_tree, require
from lstmx.convert import from_onnx
from lstmx.convert.named import chosen, ending
from lstmx.convert.onnx_graph import load_model, operators
from lstmx.convert.torch import read_state_dict, unwrapped

_RECURRENT = re.compile(
    r"^(?P<prefix>.*?)(parametrizations\.)?weight_hh(_l0)?(?P<end>|_raw|_orig|_g|_v|\.original\d?)$"
)
_WEIGHTS_ALONE = 'where it was made, save its weights alone, by torch.save(model.state_dict(), "weights.pt")'
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")

Readers = dict[str, Callable[[], tuple[Any, Any]]]
"""The recurrent modules of a file by name, each with what reads it."""


def read_weights(
    path: str | Path, layer: str | None = None, choices: Choices | None = None
) -> tuple[Any, Any, str, str]:
    """A recurrent module from a file of weights, with parameters in NumPy.

    Args:
        path: what `lstmx.save` wrote, or any .safetensors, .pt, .pth, .pth.tar, .ckpt or .bin with PyTorch's
            names; .keras or .h5, a whole model of Keras or its weights alone; .onnx; .msgpack of Flax, or a folder
            of Orbax; or an .npz of a cell's arrays under their names.
        layer: name of the module, or of one of its layers as "name: layer 0", where there are several.
        choices: what the file does not say.

    Returns:
        The cell, or the layers, with the parameters; its name in the file; and what `layer` says behind it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or one that cannot be read; no recurrent module in it, or several of
            which none is named.
        TypeError: arrays of another dtype than float32 or float64.
        ImportError: the package that reads such files is not installed.
    """
    found = recurrent_modules(path, choices)
    name, part = layer, ""
    if layer is not None and ": " in layer and not ending(found, layer):
        name, _, part = layer.rpartition(": ")
    name, read = chosen(str(path), found, unwrapped(found, name), "--layer NAME, or --layer all")
    cell, params = read()
    return cell, params, name, part


def recurrent_modules(path: str | Path, choices: Choices | None = None) -> Readers:
    """All recurrent modules of a file by name; see `read_weights`, without `layer`."""
    read_file, choices = reader_of(path), choices or Choices()

    def reader(read: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
        def cast() -> tuple[Any, Any]:
            with warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught:
                cell, params = read()
            for warning in caught:
                choices.tell(str(warning.message))
            if choices.dtype is not None:
                choices.tell(f"weights of another dtype are cast to {choices.dtype}, as asked for")
            return cell, map_tree(lambda x: np.asarray(x, choices.dtype), params)

        return cast

    return {name: reader(read) for name, read in read_file(path, choices).items()}


def reader_of(path: str | Path) -> Callable[[str | Path, Choices], Readers]:
    """What reads files of this kind.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: nothing does.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}")
    kind = next((kind for kind in _KINDS if Path(path).name.lower().endswith(kind)), None)
    if kind is None and not Path(path).is_dir():
        suffix = Path(path).suffix.lower()
        raise ValueError(f"{path} ends in {suffix or 'nothing'}; expected one of {', '.join(_KINDS)}")
    return flax_readers if kind is None or Path(path).is_dir() else _KINDS[kind]


def vocabulary_of(path: str | Path) -> str | None:
    """The characters that a model of the deep dive reads, in the order of its features; None of another file."""
    if Path(path).suffix.lower() != ".safetensors":
        return None
    found = read_safetensors(path, lambda name: name == f"{EXTRA}vocabulary")[1]
    return "".join(map(chr, *found.values())) if found else None


def _safetensors(path: str | Path, choices: Choices) -> Readers:
    if "lstmx" in read_safetensors(path, lambda name: False)[0]:
        choices.without(path, "nonlinearity", "reset")
        return {"": lambda: load(path, "numpy")}
    return _state_dict(path, read_safetensors(path)[1], choices)


def _torch(path: str | Path, choices: Choices) -> Readers:
    torch = require("torch", f"reading a {Path(path).suffix} file")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is refused below, by name
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, of zipfile, of PyTorch
        raise ValueError(f"{path} {_unread(torch, path, _ESCAPE.sub('', str(error)))}") from error
    try:
        arrays = _flat(loaded)
    except RecursionError as error:
        raise ValueError(f"{path} holds dicts or lists in one another without end, or too deep to read") from error
    held = Path(path).stat().st_size
    for name, value in arrays.items():
        if value.numel() * value.element_size() > held:  # one number expanded to many, as torch.Tensor.expand does
            raise ValueError(
                f"{path}: {name} is {tuple(value.shape)} of {value.dtype}, more than the {held:,} bytes of the "
                "file hold; save it by torch.save(state_dict) with every array whole"
            )
    return _state_dict(path, arrays, choices)


def _unread(torch: Any, path: str | Path, words: str) -> str:
    """Why PyTorch does not load a file safely, from its own words, and what to do."""
    if "TorchScript" in words:
        return f"holds a scripted model, whose code is not run here: {_WEIGHTS_ALONE}"
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no archive of PyTorch 1.6 or later
        classes = re.findall(r"GLOBAL (\S+)", words)
    if "torch.ScriptObject" in classes:
        return "holds a quantised model, whose weights are integers with scales; save it before it is quantised"
    if not classes:
        if not Path(path).stat().st_size:
            return "is empty"
        first = (words.splitlines() or ["it cannot be read"])[0].partition("Re-running")[0].partition("(1)")[0]
        return f"holds no plain weights, or is cut short: {first.partition('. ')[0].strip()}"
    return f"holds objects of {', '.join(sorted(classes))}, whose code is not run here: {_WEIGHTS_ALONE}"


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The tensors in dicts and lists in one another, their names joined by dots."""
    found: dict[str, Any] = {}
    if isinstance(tree, (list, tuple)):
        tree = dict(enumerate(tree))
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, (dict, list, tuple)):
            found |= _flat(value, f"{prefix}{name}.")
        elif hasattr(value, "shape"):
            found[f"{prefix}{name}"] = value
    return found


def _state_dict(path: str | Path, arrays: dict[str, Any], choices: Choices) -> Readers:
    choices.without(path, "reset")
    prefixes = {match["prefix"]: match["end"] for name in arrays if (match := _RECURRENT.match(name))}
    drawn = [f"{prefix}module." for prefix, end in prefixes.items() if end == "_raw"]  # the weights are beside it

    def reader(prefix: str) -> Callable[[], tuple[Any, Any]]:
        return lambda: read_state_dict(arrays, prefix, choices.nonlinearity, choices.dtype, choices.tell)

    return {prefix.removesuffix("."): reader(prefix) for prefix in prefixes if prefix not in drawn}


def _onnx(path: str | Path, choices: Choices) -> Readers:
    choices.without(path, "nonlinearity")
    model = load_model(path)
    return {
        name: lambda name=name: from_onnx(model, name, choices.reset, choices.dtype) for name in operators(model)
    }


def _npz(path: str | Path, choices: Choices) -> Readers:
    choices.without(path, "nonlinearity", "reset")
    return {"": lambda: load_parameters(path)}


_KINDS: dict[str, Callable[[str | Path, Choices], Readers]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".pth.tar": _torch,
    ".ckpt": _torch,
    ".bin": _torch,
    ".keras": keras_readers,
    ".h5": keras_readers,
    ".onnx": _onnx,
    ".msgpack": flax_readers,
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
