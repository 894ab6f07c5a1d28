"""What cells in layers and in both directions of time have in common.

A layer is a cell, a `Bidirectional` or a `Stack`. What a layer does with a pass of a cell is said once, in
`passed`, over a function that makes such a pass: `run` gives outputs, `record` gives histories.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from lstmx.arrays import Array, cumulative_max, namespace
from lstmx.cells.base import Cell
from lstmx.cells.zoneout import Zoneout
from lstmx.draws import Draws, Key, float_dtype

Layer = Any
Tree = TypeVar("Tree", bound=tuple[Any, ...])  # what layers have of each cell, parameters or states


class Directions(NamedTuple):
    """What each direction of a `Bidirectional` has: parameters, or states."""

    forward: Any
    """Of the cell that reads from the first step on."""
    backward: Any
    """Of the cell that reads from the last step on."""


class Timing(NamedTuple):
    """Which steps count, where sequences start, and where chance comes from; None for all, nowhere and none."""

    mask: Any
    resets: Any
    draws: Draws | None

    def options(self, cell: Cell) -> dict[str, Any]:
        """What `run` and `record` of one cell are to know of these."""
        key = self.draws.part() if self.draws is not None and isinstance(cell, Zoneout) else None
        return {"mask": self.mask, "resets": self.resets, "key": key}

    def reversed(self) -> Timing:
        """For who reads from the last step on: a sequence starts after the counted step that was its first."""
        if self.resets is None:
            return self if self.mask is None else self._replace(mask=flipped(self.mask))
        xp = namespace(self.resets)
        resets = flipped(self.resets)
        if self.mask is None:
            return self._replace(resets=xp.concat([xp.zeros_like(resets[:1]), resets[:-1]]))
        mask = flipped(self.mask)
        steps = xp.reshape(xp.arange(len(mask)), (-1, *(1,) * (mask.ndim - 1)))
        latest = cumulative_max(xp.where(mask, steps, -1))
        before = xp.concat([xp.full_like(latest[:1], -1), latest[:-1]])  # the last counted step before each
        starts = xp.take_along_axis(resets & mask, xp.maximum(before, 0), axis=0) & (before >= 0)
        return self._replace(mask=mask, resets=starts)


class Layers(ABC, Generic[Tree]):
    """What a stack and a pair of directions share: everything about them is a tree over their cells."""

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Number of features D of x_t."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Numbers in an output."""

    @property
    @abstractmethod
    def parts(self) -> dict[str, Layer]:
        """The layers inside, by name, in the order of parameters and states."""

    @abstractmethod
    def tree(self, values: Any) -> Tree:
        """Parameters or states from those of the parts."""

    @abstractmethod
    def passed(
        self, one: Callable[..., Any], params: Any, xs: Array, state: Any, timing: Timing, masks: Any
    ) -> Any:
        """One pass: `one(cell, params, xs, state, timing)` for each cell. What it returns has `outputs`."""

    @property
    def both_directions(self) -> bool:
        """Whether any layer reads time in both directions."""
        return any(getattr(part, "both_directions", False) for part in self.parts.values())

    def cell_names(self) -> list[str]:
        """The names of the cells inside as `history.cells()` has them, in the order of a pass."""
        found = []
        for name, part in self.parts.items():
            found += [f"{name}, {inner}" for inner in part.cell_names()] if isinstance(part, Layers) else [name]
        return found

    @property
    def parameter_count(self) -> int:
        """Numbers in the parameters."""
        return sum(part.parameter_count for part in self.parts.values())

    def init(self, key: Key, dtype: Any = "float32", scheme: Any = ()) -> Tree:
        """Fresh parameters of every layer, as `Cell.init` draws them; each layer's drawn anew.

        Args:
            key: as for a cell.
            dtype: "float32" or "float64".
            scheme: as for a cell; applied to every cell.

        Raises:
            TypeError: as for a cell.
            ValueError: as for a cell.
        """
        draws = Draws(key)
        return self.fresh(draws, float_dtype(draws.xp, dtype), scheme)

    def fresh(self, draws: Draws, dtype: Any, scheme: Any = ()) -> Tree:
        """Fresh parameters of every layer from a source of draws."""
        return self.tree([part.fresh(draws, dtype, scheme) for part in self.parts.values()])

    def initial_state(self, params: Tree, batch: tuple[int, ...] = ()) -> Tree:
        """The zero states with the given batch axes."""
        states = (part.initial_state(p, batch) for part, p in zip(self.parts.values(), params, strict=True))
        return self.tree(list(states))

    def check(self, what: str, values: Any, each: Callable[[Cell, Any, str], None]) -> None:
        """Raise unless `values` are those of every part: parameters, or states."""
        kind = type(self.tree([None] * len(self.parts)))
        if not isinstance(values, kind) or len(values) != len(self.parts):
            found = f"{type(values).__name__}" + (f" of {len(values)}" if isinstance(values, tuple) else "")
            raise TypeError(
                f"{what} is a {found}; expected a {kind.__name__} of {len(self.parts)}, as {self!r} has"
            )
        for (name, part), value in zip(self.parts.items(), values, strict=True):
            inside = f"{what} of {name}"
            part.check(inside, value, each) if isinstance(part, Layers) else each(part, value, inside)


class Passing:
    """How `Layers.passed` makes passes of cells, and puts them together."""

    def __init__(self, one: Callable[..., Any], stacked: Callable[..., Any], joined: Callable[..., Any]):
        self.one, self.stacked, self.joined = one, stacked, joined

    def __call__(self, *args: Any) -> Any:
        return self.one(*args)


def pass_of(one: Any, layer: Layer, params: Any, xs: Array, state: Any, timing: Timing) -> Any:
    """One pass of a layer of a stack."""
    if isinstance(layer, Layers):
        return layer.passed(one, params, xs, state, timing, None)
    return one(layer, params, xs, state, timing)


def flipped(x: Array) -> Array:
    """`x` [T, *batch, ...] with time reversed."""
    return namespace(x).flip(x, axis=0)
