"""Cells in words and numbers that JSON holds, and back: no code is run to read them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lstmx import cells

CELLS: dict[str, Any] = {
    name: kind
    for name, kind in vars(cells).items()
    if dataclasses.is_dataclass(kind) and kind is not cells.StepFunction  # functions are no words
}


def described(cell: Any, kinds: dict[str, Any] = CELLS) -> dict[str, Any]:
    """The kind of a cell and its options, with those of cells inside.

    Args:
        cell: the cell, or whatever is in `kinds`.
        kinds: name to class of what can be described.

    Raises:
        TypeError: it is none of these.
    """
    if type(cell) not in kinds.values():
        raise TypeError(f"a {type(cell).__name__} is not known by name; expected one of {', '.join(kinds)}")
    options = {field.name: _words(getattr(cell, field.name), kinds) for field in dataclasses.fields(cell)}
    return {"kind": type(cell).__name__, "options": options}


def _words(value: Any, kinds: dict[str, Any]) -> Any:
    if type(value) in kinds.values():
        return described(value, kinds)
    if isinstance(value, tuple):
        return [_words(part, kinds) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def cell_from(description: Any, kinds: dict[str, Any] = CELLS) -> Any:
    """What `described` described.

    Raises:
        ValueError: it is no description, or of a kind or with an option that this version does not know, or with a
            value that the cell refuses.
    """
    if not isinstance(description, dict) or not isinstance(description.get("options"), dict):
        raise ValueError(f"a cell is described by its kind and options, not by {description!r}")
    name, options = description.get("kind"), description["options"]
    if name not in kinds:
        raise ValueError(f"a cell {name!r} is described; this version knows {', '.join(kinds)}")
    known = {field.name for field in dataclasses.fields(kinds[name])}
    surplus = sorted(set(options) - known)
    if surplus:
        raise ValueError(f"{name} is described with {', '.join(surplus)}, which this version does not know")
    try:
        return kinds[name](**{option: _value(value, kinds) for option, value in options.items()})
    except TypeError as error:
        raise ValueError(f"{name} is described with options that it refuses: {error}") from error


def _value(value: Any, kinds: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return cell_from(value, kinds)
    return tuple(_value(part, kinds) for part in value) if isinstance(value, list) else value
