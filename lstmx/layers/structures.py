"""Stacks of layers, and both directions of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lstmx.arrays import Array, columns, leaves, namespace
from lstmx.cells.base import Cell
from lstmx.cells.description import CELLS
from lstmx.cells.zoneout import Zoneout
from lstmx.checks import (
    array,
    cells_of,
    finite_number,
    in_one_library,
    kind_of,
    one_direction,
    one_of,
    parameters,
    sequences,
    state,
)
from lstmx.draws import Draws, draws_for
from lstmx.history.controls import Controls, controlled
from lstmx.layers.base import Directions, Layer, Layers, Timing, flipped, pass_of


@dataclass(frozen=True)
class Stack(Layers[tuple[Any, ...]]):
    """Layers on one another: each reads the outputs of the one below.

    Attributes:
        cells: cells or `Bidirectional`s, from the bottom; each layer's input size is the output size of the one
            below. A list is kept as a tuple.
        dropout: probability with which an output of a layer below another is set to 0 on its way up (the others
            are divided by 1 − dropout), where `run` or `record` gets a key; without one nothing is dropped.

    Raises:
        TypeError: `cells` is no list, or something in it no layer.
        ValueError: no layers, sizes that do not meet, or a dropout outside [0, 1).
    """

    cells: Any
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.cells, (list, tuple)):
            raise TypeError(
                f"cells is {kind_of(self.cells)}; expected a list of cells from the bottom, as in "
                "Stack([lstmx.LSTM(3, 8)])"
            )
        object.__setattr__(self, "cells", tuple(self.cells))
        if not self.cells:
            raise ValueError("cells is empty; expected at least one layer")
        for k, cell in enumerate(self.cells):
            _layer(f"layer {k}", cell)
            if k and cell.input_size != self.cells[k - 1].output_size:
                raise ValueError(
                    f"layer {k} has input_size={cell.input_size}; the layer below it gives "
                    f"{self.cells[k - 1].output_size} numbers"
                )
        finite_number("dropout", self.dropout, "a probability from 0 to below 1", lambda x: 0 <= x < 1)

    @property
    def input_size(self) -> int:
        return self.cells[0].input_size

    @property
    def output_size(self) -> int:
        return self.cells[-1].output_size

    @property
    def parts(self) -> dict[str, Layer]:
        return {f"layer {k}": cell for k, cell in enumerate(self.cells)}

    def tree(self, values: Any) -> tuple[Any, ...]:
        """A tuple with a value for each layer, bottom first."""
        return tuple(values)

    @property
    def state_size(self) -> int:
        """Numbers in the joint state of all layers."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> tuple[int, ...]:
        one_direction(self)
        return tuple(layer.state_size for layer in self.cells)

    @property
    def bounded(self) -> bool:
        """Whether the state stays in a box under a constant input, whatever the parameters."""
        return all(layer.bounded for layer in self.cells)

    def pack(self, states: Any) -> Array:
        """The states of all layers as one array [*lead, S], the lowest first."""
        parts = [layer.pack(own) for layer, own in zip(self.cells, states, strict=True)]
        return namespace(*parts).concat(parts, axis=-1)

    def unpack(self, packed: Array) -> Any:
        """What `pack` packed."""
        parts = columns(packed, self._sizes)
        return tuple(layer.unpack(part) for layer, part in zip(self.cells, parts, strict=True))

    def masks(self, draws: Draws, xs: Array) -> Any:
        """What outputs between layers are multiplied by, [T, *batch, H] each; None where nothing is dropped."""
        if not self.dropout:
            return None
        lead, dtype, kept = tuple(xs.shape[:-1]), xs.dtype, 1 - self.dropout
        drawn = (draws.uniform((*lead, cell.output_size), dtype, 0.0, 1.0) for cell in self.cells[:-1])
        return tuple((u < kept).astype(dtype) / dtype.type(kept) for u in drawn)

    def passed(
        self, one: Callable[..., Any], params: Any, xs: Array, state: Any, timing: Timing, masks: Any
    ) -> Any:
        """One pass, layer by layer; see `Layers.passed`."""
        states = [None] * len(self.cells) if state is None else state
        made = []
        for k, (cell, own, start) in enumerate(zip(self.cells, params, states, strict=True)):
            if k:
                xs = made[-1].outputs if masks is None else made[-1].outputs * masks[k - 1]
            made.append(pass_of(one, cell, own, xs, start, timing))
        return one.stacked(self, params, made, masks)  # type: ignore  # a `Passing`


@dataclass(frozen=True)
class Bidirectional(Layers[Directions]):
    """Two copies of a cell, one from the first step on and one from the last step on, and their outputs together.

    The backward cell's output at step t has read steps t, …, T − 1 (to the end of the sequence where lengths are
    given).

    Attributes:
        cell: the cell; each direction has parameters and a state of its own.
        merge: "concatenate" for outputs [..., 2H], forward first; "sum" for [..., H].

    Raises:
        TypeError: `cell` is no cell.
        ValueError: another word for `merge`.
    """

    cell: Cell
    merge: str = "concatenate"

    def __post_init__(self) -> None:
        cells_of("cell", self.cell, layers=False)
        one_of("merge", self.merge, ("concatenate", "sum"))

    @property
    def input_size(self) -> int:
        return self.cell.input_size

    @property
    def output_size(self) -> int:
        return self.cell.output_size * (2 if self.merge == "concatenate" else 1)

    @property
    def parts(self) -> dict[str, Layer]:
        return {"forward": self.cell, "backward": self.cell}

    @property
    def both_directions(self) -> bool:
        return True

    def tree(self, values: Any) -> Directions:
        """`Directions` of a value for each direction."""
        return Directions(*values)

    def merged(self, forward: Array, backward: Array) -> Array:
        """Outputs [..., 2H] or [..., H] from those of the two directions, both in the order of time."""
        xp = namespace(forward, backward)
        return forward + backward if self.merge == "sum" else xp.concat([forward, backward], axis=-1)

    def parted(self, outputs: Array) -> tuple[Array, Array]:
        """What `merged` does, backward: the cotangent of each direction's outputs."""
        h = self.cell.output_size
        return (outputs, outputs) if self.merge == "sum" else (outputs[..., :h], outputs[..., h:])

    def passed(
        self, one: Callable[..., Any], params: Any, xs: Array, state: Any, timing: Timing, masks: Any
    ) -> Any:
        """One pass in each direction; see `Layers.passed`."""
        del masks
        states = Directions(None, None) if state is None else state
        forward = one(self.cell, params.forward, xs, states.forward, timing)
        backward = one(self.cell, params.backward, flipped(xs), states.backward, timing.reversed())
        return one.joined(self, params, forward, backward)  # type: ignore  # a `Passing`


KINDS: dict[str, Any] = CELLS | {"Stack": Stack, "Bidirectional": Bidirectional}
"""What can be described in words, by name."""


def _layer(name: str, value: Any) -> None:
    if not isinstance(value, (Cell, Bidirectional)):
        raise TypeError(f"{name} is {kind_of(value)}; expected a cell or a Bidirectional")


def layered_door(
    layers: Layers, params: Any, xs: Array, initial: Any, timing: tuple[Any, Any, Any], key: Any
) -> tuple[Any, Array, Any, Timing, Any]:
    """Check the arguments of a pass through layers before any of them runs; and draw its dropout masks.

    Args:
        layers: the layers.
        params: their parameters.
        xs: inputs.
        initial: their states, or None.
        timing: lengths, mask and resets, or None.
        key: of what is drawn; None for no chance.

    Returns:
        Parameters, inputs and states in one library, the timing with where draws come from, and the masks.
    """
    parameters(layers, params)
    first = next(leaves(params))
    sequences(layers, (first,), array("xs", xs, first.dtype))
    batch = tuple(xs.shape[1:-1])
    if initial is not None:
        layers.check("state", initial, lambda cell, value, name: state(cell, (first,), value, batch, name=name))
    params, xs, initial = in_one_library((params, xs, initial))
    xs, controls = controlled(layers, xs, *timing, None)
    hold, resets, _ = controls or Controls()
    mask = None if hold is None else ~hold
    if key is None:
        return params, xs, initial, Timing(mask, resets, None), None
    if not isinstance(layers, Stack) and not isinstance(layers.cell, Zoneout):  # type: ignore  # a Bidirectional
        raise ValueError(f"key is given; {layers!r} has nothing random")
    draws = draws_for(namespace(*leaves((params, xs))), key)
    masks = layers.masks(draws, xs) if isinstance(layers, Stack) else None
    return params, xs, initial, Timing(mask, resets, draws), masks
