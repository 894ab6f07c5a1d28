"""A cell as plain words and numbers, which JSON can hold, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lstmx.cells import GRU, JANET, LSTM, MGU, SLSTM, Cell, MinGRU, MinLSTM, SimpleRNN, Zoneout
from lstmx.cells.masked import Masked

PLAIN: dict[str, type[Cell]] = {
    kind.__name__: kind for kind in (LSTM, GRU, SimpleRNN, JANET, MGU, MinLSTM, MinGRU, SLSTM)
}
_KINDS: dict[str, type[Cell]] = PLAIN | {kind.__name__: kind for kind in (Zoneout, Masked)}


def described(cell: Cell) -> dict[str, Any]:
    """The class of a cell and all its options, as JSON can hold them; a cell inside another one likewise.

    Raises:
        TypeError: this is no cell of the library.
    """
    name = type(cell).__name__
    if _KINDS.get(name) is not type(cell):
        raise TypeError(f"a {name} is not known by name; expected one of {', '.join(_KINDS)}")
    fields = dataclasses.fields(cell)  # type: ignore  # every cell is a dataclass
    return {"cell": name, "options": {f.name: _plain(getattr(cell, f.name)) for f in fields}}


def cell_from(description: Any) -> Cell:
    """The cell that `described` gave this of.

    Raises:
        ValueError: it is no such description, or of a cell or an option that this version does not know.
    """
    if not isinstance(description, dict) or not isinstance(description.get("options"), dict):
        raise ValueError(f"{description!r} describes no cell; expected its name under cell, and options")
    name, options = description.get("cell"), description["options"]
    if name not in _KINDS:
        raise ValueError(f"the cell is a {name!r}; this version knows {', '.join(_KINDS)}")
    kind: Any = _KINDS[name]
    known = {field.name for field in dataclasses.fields(kind)}
    surplus = sorted(set(options) - known)
    if surplus:
        raise ValueError(f"a {name} of this version has no option {', '.join(surplus)}")
    try:
        return kind(**{key: cell_from(x) if isinstance(x, dict) else x for key, x in options.items()})
    except TypeError as error:
        raise ValueError(f"{options} are no options of a {name}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Cell):
        return described(value)
    return value.item() if isinstance(value, np.generic) else value
