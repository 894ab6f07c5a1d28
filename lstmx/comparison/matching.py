"""Hidden sizes that make cells comparable."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from lstmx.cells.base import Cell
from lstmx.checks import one_of
from lstmx.tasks import Task
from lstmx.training import Model

TOLERANCE = 0.01
"""Largest relative difference from the first model that goes without a warning."""
_UNITS = {"parameters": "parameters", "flop": "floating-point operations a step"}


def matched(cells: dict[str, Cell], task: Task, match: str = "parameters") -> dict[str, Cell]:
    """The cells with the hidden sizes that make them comparable to the first one.

    Neighbouring hidden sizes H differ by about 2/H of their parameters, so the nearest is off by up to 1/H: a
    match within 1 % is sure from some hundred units on, and luck below.

    Args:
        cells: names to cells; the first one stays as it is.
        task: what they are to learn, which sets the readout.
        match: "parameters" or "flop" (operations of one step), readout included, as near as can be; or
            "hidden_size", the first one's for all.

    Returns:
        The cells, under the same names.

    Raises:
        ValueError: another word; or a cell that is too large even with one unit.

    Warns:
        UserWarning: the nearest is off by more than 1 %.
    """
    one_of("match", match, (*_UNITS, "hidden_size"))
    name, first = next(iter(cells.items()))
    if match == "hidden_size":
        return {name: _resized(cell, first.hidden_size) for name, cell in cells.items()}

    @functools.cache
    def size(cell: Cell) -> int:
        model = Model(cell, task.output_size, task.loss)
        return model.count() if match == "parameters" else model.operations()

    aim, found = size(first), {name: first}
    for other, cell in list(cells.items())[1:]:
        found[other] = near = _nearest(cell, aim, size)
        off = size(near) / aim - 1
        if abs(off) <= TOLERANCE:
            continue
        says = (
            f"{other} comes no nearer to the {aim:,} {_UNITS[match]} of {name} than {size(near):,}, with "
            f"{near.hidden_size} unit{'s' * (near.hidden_size != 1)} ({off:+.1%})"
        )
        if near.hidden_size == 1 and off > 0:
            raise ValueError(f"{says}; take a larger first cell, or match='hidden_size'")
        units = math.ceil(first.hidden_size / near.hidden_size / TOLERANCE)
        warnings.warn(f"{says}; a first cell of about {units} units comes within 1 %", stacklevel=3)
    return found


def _nearest(cell: Cell, aim: int, size: Callable[[Cell], int]) -> Cell:
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


def _resized(cell: Any, hidden_size: int) -> Cell:
    if getattr(cell, "projection", None):  # keeps its share of the units
        share = cell.projection / cell.hidden_size
        return dataclasses.replace(cell, hidden_size=hidden_size, projection=max(1, round(share * hidden_size)))
    return dataclasses.replace(cell, hidden_size=hidden_size)
