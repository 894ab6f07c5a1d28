"""Hidden sizes that make cells comparable."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from lstmx.cells import Zoneout
from lstmx.checks import one_of
from lstmx.layers import Bidirectional, Layers, Stack
from lstmx.tasks import Task
from lstmx.training import Model

TOLERANCE = 0.01
"""Largest relative difference from the first model that goes without a warning."""
_UNITS = {"parameters": "parameters", "flop": "floating-point operations a step"}


def matched(cells: dict[str, Any], task: Task, match: str = "parameters") -> dict[str, Any]:
    """The cells with the hidden sizes that make them comparable to the first one.

    Neighbouring hidden sizes H differ by about 2/H of their parameters, so the nearest is off by up to 1/H: a
    match within 1 % is sure from some hundred units on, and luck below.

    The layers of a stack keep the proportions of their sizes; its hidden size is that of its first layer. A step
    function keeps its size, which is its owner's.

    Args:
        cells: names to cells or layers; the first one stays as it is.
        task: what they are to learn, which sets the readout.
        match: "parameters" or "flop" (operations of one step), readout included, as near as can be; or
            "hidden_size", the first one's for all.

    Returns:
        The cells, under the same names.

    Raises:
        ValueError: another word; a cell that is too large even with one unit; or with "hidden_size" a step
            function of another size than the first cell.

    Warns:
        UserWarning: the nearest is off by more than 1 %.
    """
    one_of("match", match, (*_UNITS, "hidden_size"))
    name, first = next(iter(cells.items()))
    if match == "hidden_size":
        for cell in cells.values():
            if not _resizable(cell) and units(cell) != units(first):
                raise ValueError(
                    f"{cell!r} has {units(cell)} units and keeps its size, and {name} has {units(first)}; put the "
                    "step function first"
                )
        return {name: _resized(cell, units(first)) for name, cell in cells.items()}

    @functools.cache
    def size(cell: Any) -> int:
        model = Model(cell, task.output_size, task.loss)
        return model.count() if match == "parameters" else model.operations()

    aim, found = size(first), {name: first}
    for other, cell in list(cells.items())[1:]:
        found[other] = near = _nearest(cell, aim, size) if _resizable(cell) else cell
        off = size(near) / aim - 1
        if abs(off) <= TOLERANCE:
            continue
        says = (
            f"{other} comes no nearer to the {aim:,} {_UNITS[match]} of {name} than {size(near):,}, with "
            f"{units(near)} unit{'s' * (units(near) != 1)} ({off:+.1%})"
        )
        if not _resizable(cell):
            warnings.warn(f"{says}; the size of a step function is its owner's to change", stacklevel=3)
            continue
        if units(near) == 1 and off > 0:
            raise ValueError(f"{says}; take a larger first cell, or match='hidden_size'")
        enough = math.ceil(units(first) / units(near) / TOLERANCE)
        warnings.warn(f"{says}; a first cell of about {enough} units comes within 1 %", stacklevel=3)
    return found


def units(cell: Any) -> int:
    """The hidden size of a cell, or of the first layer of layers."""
    return units(next(iter(cell.parts.values()))) if isinstance(cell, Layers) else cell.hidden_size


def _resizable(cell: Any) -> bool:
    """Whether no step function is inside."""
    return all(map(_resizable, cell.parts.values())) if isinstance(cell, Layers) else cell.closed_form


def _nearest(cell: Any, aim: int, size: Callable[[Any], int]) -> Any:
    """The cell with the hidden size whose model has the size nearest to `aim`."""
    high = 1
    while size(_resized(cell, high)) < aim:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(_resized(cell, middle)) < aim else (low, middle)
    candidates = [_resized(cell, units) for units in (low, high) if units]
    return min(candidates, key=lambda resized: abs(size(resized) - aim))


def _resized(cell: Any, hidden_size: int, input_size: int | None = None) -> Any:
    """A cell, or layers, with another hidden size of the first layer, and with `input_size` where it is given."""
    if not _resizable(cell):
        return cell
    if isinstance(cell, Stack):
        share, made = hidden_size / units(cell), []
        for layer in cell.cells:
            made.append(_resized(layer, max(1, round(share * units(layer))), input_size))
            input_size = made[-1].output_size
        return dataclasses.replace(cell, cells=tuple(made))
    if isinstance(cell, (Bidirectional, Zoneout)):
        return dataclasses.replace(cell, cell=_resized(cell.cell, hidden_size, input_size))
    sizes = {"hidden_size": hidden_size, "input_size": input_size or cell.input_size}
    if getattr(cell, "projection", None):  # keeps its share of the units
        sizes["projection"] = max(1, round(cell.projection / cell.hidden_size * hidden_size))
    return dataclasses.replace(cell, **sizes)
