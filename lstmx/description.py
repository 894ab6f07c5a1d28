"""Cells and layers in words and numbers that JSON holds, and back: no code is run to read them."""

from __future__ import annotations

import dataclasses
from typing import Any

from lstmx.cells import GRU, JANET, LSTM, MGU, SLSTM, MinGRU, MinLSTM, SimpleRNN, Zoneout
from lstmx.cells.masked import Masked
from lstmx.layers import Bidirectional, Stack

CELLS: dict[str, Any] = {
    kind.__name__: kind for kind in (LSTM, GRU, SimpleRNN, JANET, MGU, MinLSTM, MinGRU, SLSTM, Zoneout, Masked)
}
KINDS: dict[str, Any] = CELLS | {"Stack": Stack, "Bidirectional": Bidirectional}


def described(cell: Any) -> dict[str, Any]:
    """The kind of a cell or of layers and its options, with those of cells inside."""
    if type(cell) not in KINDS.values():
        raise TypeError(f"a {type(cell).__name__} is no cell of lstmx; those are {', '.join(KINDS)}")
    options = {field.name: _words(getattr(cell, field.name)) for field in dataclasses.fields(cell)}
    return {"kind": type(cell).__name__, "options": options}


def _words(value: Any) -> Any:
    if type(value) in KINDS.values():
        return described(value)
    return [_words(part) for part in value] if isinstance(value, tuple) else value


def cell_of(description: Any) -> Any:
    """The cell or layers that `described` described.

    Raises:
        ValueError: it is none, of a kind or with an option that this version does not know, or with a value that
            the cell refuses.
    """
    if not isinstance(description, dict) or set(description) != {"kind", "options"}:
        raise ValueError(f"a cell is described by its kind and options, not by {description!r}")
    name, options = description["kind"], description["options"]
    if name not in KINDS:
        raise ValueError(f"a cell {name!r} is described; this version knows {', '.join(KINDS)}")
    known = {field.name for field in dataclasses.fields(KINDS[name])}
    surplus = sorted(set(options) - known)
    if surplus:
        raise ValueError(f"{name} is described with {', '.join(surplus)}, which this version does not know")
    try:
        return KINDS[name](**{option: _value(value) for option, value in options.items()})
    except TypeError as error:
        raise ValueError(f"{name} is described with options that it refuses: {error}") from error


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return cell_of(value)
    return tuple(_value(part) for part in value) if isinstance(value, list) else value
