"""A recorded pass run again on other inputs, many at once."""

from __future__ import annotations

import math
from typing import Any

from lstmx.arrays import Array, map_tree, namespace
from lstmx.history import History
from lstmx.layers import BidirectionalHistory, StackHistory, flipped
from lstmx.passes.forward import recorded_part

_ELEMENTS = 2**24  # of what a group of passes leaves behind


def again(history: Any, xs: Array, initial: Any) -> Any:
    """The history of the same pass on other inputs.

    Zoneout and dropout keep what was drawn, and the steps that did not count do not.

    Args:
        history: the recorded pass, of a cell or of layers.
        xs: inputs [T, n, *batch, D], n passes.
        initial: initial states, like the history's, with fields [n, *batch, H].
    """
    if isinstance(history, History):
        controls = map_tree(lambda x: _among(x, xs.shape[1]), history.controls)
        return recorded_part(history.cell, history.params, xs, controls, initial, "all")
    if isinstance(history, BidirectionalHistory):
        forward = again(history.forward, xs, initial[0])
        backward = again(history.backward, flipped(xs), initial[1])
        return BidirectionalHistory(history.cell, history.params, forward, backward)
    masks = map_tree(lambda x: _among(x, xs.shape[1]), history.masks)
    layers = []
    for k, (layer, start) in enumerate(zip(history.layers, initial, strict=True)):
        layers.append(again(layer, xs, start))
        xs = layers[-1].outputs
        if masks is not None and k < len(masks):
            xs = xs * masks[k]
    return StackHistory(history.cell, history.params, tuple(layers), masks)


def _among(x: Array, count: int) -> Array:
    """[T, *batch, ...] as [T, count, *batch, ...]."""
    return namespace(x).broadcast_to(x[:, None], (x.shape[0], count, *x.shape[1:]))


def at_once(history: Any) -> int:
    """How many passes are run in one go."""
    width = sum(cell.preactivation_size + cell.state_size for cell in _cells(history))
    return max(1, _ELEMENTS // (len(history) * math.prod(history.batch) * width))


def _cells(history: Any) -> list[Any]:
    if isinstance(history, History):
        return [history.cell]
    return [part.cell for part, _ in history.cells().values()]


def alone(history: Any, index: tuple[int, ...]) -> Any:
    """One sequence of a batch, of a cell or of layers."""
    if isinstance(history, History):
        return history.sequence(*index)
    if isinstance(history, BidirectionalHistory):
        parts = (alone(part, index) for part in (history.forward, history.backward))
        return BidirectionalHistory(history.cell, history.params, *parts)
    masks = map_tree(lambda x: x[(slice(None), *index)], history.masks)
    return StackHistory(
        history.cell, history.params, tuple(alone(layer, index) for layer in history.layers), masks
    )
