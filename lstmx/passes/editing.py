"""`intervene`: a pass of a cell with edits."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import Array, jit, map_tree
from lstmx.cells.base import Cell
from lstmx.checks import door
from lstmx.editing.binding import bind
from lstmx.editing.edited import Edited
from lstmx.editing.edits import described, library, listed
from lstmx.history import Controls, controlled
from lstmx.passes.forward import edited_history, started


def edited_pass(cell: Cell, params: Any, xs: Array, state: Any, edits: Any, said: tuple[Any, ...]) -> Edited:
    """What `intervene` returns; `said` is lengths, mask, resets and key."""
    edits = listed(edits)
    params, xs, state = door(cell, params, xs, state)
    xp = library(xs, edits)
    params, xs, state = map_tree(xp.asarray, (params, xs, state))
    xs, controls = controlled(cell, xs, *said)
    bound = tuple(bind(one, cell, xp, tuple(xs.shape[:-1]), xs.dtype) for one in edits)
    start, made = _record_edited(cell, params, xs, state, controls, bound)
    words = tuple(described(one) for one in edits)
    return Edited(cell, params, start if state is None else state, xs, *made, controls=controls, edits=words)


@jit(static=("cell",))
def _record_edited(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, edits: tuple[Any, ...]
) -> tuple[Any, Any]:
    """The initial state, and what the edited pass leaves."""
    params, state = started(cell, params, xs, state)
    return state, edited_history(cell, params, xs, state, controls, edits)
