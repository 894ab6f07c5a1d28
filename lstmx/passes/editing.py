"""`intervene`: a pass of a cell, or of layers, with edits."""

from __future__ import annotations

from typing import Any, NamedTuple

from lstmx.arrays import Array, jit, map_tree, namespace
from lstmx.cells.base import Cell
from lstmx.checks import door
from lstmx.editing.binding import bind
from lstmx.editing.edited import Edited, EditedLayers
from lstmx.editing.edits import described, library, listed
from lstmx.history import Controls, controlled
from lstmx.layers import Bidirectional, Layers, Passing, Stack, Timing, layered_door
from lstmx.passes.forward import edited_history, recorded_part, started


def edited_pass(cell: Cell, params: Any, xs: Array, state: Any, edits: Any, said: tuple[Any, ...]) -> Edited:
    """What `intervene` returns for a cell; `said` is lengths, mask, resets and key."""
    if isinstance(edits, dict):
        raise TypeError(f"edits is a dict, of names of layers; {cell!r} is one cell: expected an edit or a list")
    edits = listed(edits)
    params, xs, state = door(cell, params, xs, state)
    params, xs, state = map_tree(library(xs, edits).asarray, (params, xs, state))
    return _edited(cell, params, xs, state, edits, said)


def edited_layers(
    layers: Layers, params: Any, xs: Array, state: Any, edits: Any, said: tuple[Any, Any, Any], key: Any
) -> EditedLayers:
    """What `intervene` returns for layers; `said` is lengths, mask and resets."""
    named = _by_name(layers, edits)
    params, xs, state, timing, masks = layered_door(layers, params, xs, state, said, key)
    xp = library(xs, tuple(edit for some in named.values() for edit in some))
    params, xs, state, masks = map_tree(xp.asarray, (params, xs, state, masks))
    return layers.passed(_passing(layers, named), params, xs, state, timing, masks).edited


def _by_name(layers: Layers, edits: Any) -> dict[str, tuple[Any, ...]]:
    """The edits of each cell that has any, by its name, checked."""
    known = layers.cell_names()
    listing = ", ".join(map(repr, known))
    if not isinstance(edits, dict):
        raise TypeError(
            f"edits is a {type(edits).__name__}; of layers expected a dict from the name of a cell to its edits, "
            f"with names out of {listing}"
        )
    unknown = [name for name in edits if name not in known]
    if unknown:
        raise ValueError(f"edits names {unknown[0]!r}; the cells are {listing}")
    return {name: listed(some) for name, some in edits.items()}


class _Part(NamedTuple):
    """A pass under the names that `Layers.passed` knows."""

    edited: Any
    outputs: Array


def _passing(layers: Layers, named: dict[str, tuple[Any, ...]]) -> Passing:
    """Passes with the edits of each cell; those without any are recorded."""
    names = iter(layers.cell_names())

    def one(cell: Cell, params: Any, xs: Array, state: Any, timing: Timing) -> _Part:
        edits, options = named.get(next(names)), timing.options(cell)
        said = (None, options["mask"], options["resets"], options["key"])
        if edits is not None:
            made = _edited(cell, params, xs, state, edits, said)
        else:
            xs, controls = controlled(cell, xs, *said)
            made = recorded_part(cell, params, xs, controls, state, "all")
        return _Part(made, made.outputs)

    def stacked(stack: Stack, params: Any, made: list[_Part], masks: Any) -> _Part:
        parts = tuple(part.edited for part in made)
        return _Part(EditedLayers(stack, params, parts, masks, _words(stack, parts)), made[-1].outputs)

    def joined(pair: Bidirectional, params: Any, forward: _Part, backward: _Part) -> _Part:
        parts = forward.edited, backward.edited
        edited = EditedLayers(pair, params, parts, None, _words(pair, parts))
        return _Part(edited, edited.outputs)

    return Passing(one, stacked, joined)


def _words(layers: Layers, parts: tuple[Any, ...]) -> tuple[str, ...]:
    """The edits of the parts in words, with the parts' names."""
    named = zip(layers.parts, parts, strict=True)
    return tuple(f"{name}: {edit}" for name, part in named for edit in getattr(part, "edits", ()))


def _edited(
    cell: Cell, params: Any, xs: Array, state: Any, edits: tuple[Any, ...], said: tuple[Any, ...]
) -> Edited:
    """The pass of a cell whose arguments are checked and in the library that it runs in."""
    if not cell.closed_form:
        raise TypeError(f"edits change gates by name; {cell!r} is a step function, whose equations are its own")
    xs, controls = controlled(cell, xs, *said)
    xp = namespace(xs)
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
