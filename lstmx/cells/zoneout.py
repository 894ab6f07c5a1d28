"""Zoneout: units that keep their state for a step, at random or in the mean."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from lstmx.arrays import Array, columns, exp, log, map_tree, namespace
from lstmx.cells.base import Cell
from lstmx.cells.wrapped import Wrapped
from lstmx.draws import Draws


class ZoneoutSlopes(NamedTuple):
    """The inner cell's slopes and its state after, and the share of the old state that each field keeps."""

    inner: Any
    after: Any
    kept: Any


@dataclass(frozen=True, repr=False)
class Zoneout(Wrapped):
    """A cell whose units keep their old state with some probability, each field of the state on its own.

        s_t = d_t ∘ s_{t-1} + (1 − d_t) ∘ F(s_{t-1}, x_t)

    with F the inner cell's step. Where `run` or `record` gets a key, d_t is drawn anew for each unit, field and
    step, 1 with the field's probability, else 0; without a key it is that probability, as is usual once a network
    is trained. A history holds what was drawn, and every analysis is of the steps as they were.

    An LSTM's h_t is that of the new cell state, before c_{t-1} is mixed into it.

    Attributes:
        cell: the inner cell.
        hidden: probability with which a unit's h_{t-1} is kept.
        state: probability of each other field, such as an LSTM's c_{t-1}.
        drawn: whether inputs carry d_t behind x_t; `run` and `record` set it where they get a key.

    Raises:
        TypeError: `cell` is no cell.
        ValueError: a probability outside [0, 1]; or an SLSTM, whose fields cannot be mixed one by one.

    References:
        Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations", ICLR 2017 (arXiv
        1606.01305).
    """

    cell: Cell
    hidden: float = 0.1
    state: float = 0.1
    drawn: bool = False

    def __repr__(self) -> str:
        return f"Zoneout({self.cell!r}, hidden={self.hidden}, state={self.state})"

    def __post_init__(self) -> None:
        if not isinstance(self.cell, Cell):
            raise TypeError(f"cell is a {type(self.cell).__name__}; expected a cell such as lstmx.LSTM(3, 8)")
        if "stabiliser" in self.cell.state_type._fields:
            raise ValueError(
                f"cell is {self.cell}, whose c, n and m mean something only together; Zoneout mixes them apart"
            )
        for name in ("hidden", "state"):
            rate = getattr(self, name)
            if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) <= 1:
                raise ValueError(f"{name} is {rate!r}; expected a probability from 0 to 1")

    @property
    def own_controls(self) -> int:
        return self.state_size if self.drawn else 0

    def masks(self, draws: Draws, lead: tuple[int, ...], dtype: Any) -> Array:
        """D_t of every field and step, [*lead, S]."""
        rates = (self.hidden, *(self.state for _ in self.state_type._fields[1:]))
        drawn = [
            (draws.uniform((*lead, size), dtype, 0.0, 1.0) < rate).astype(dtype)
            for size, rate in zip(self.field_sizes, rates, strict=True)
        ]
        return draws.xp.concat(drawn, axis=-1)

    def _kept(self, controls: Array, like: Any) -> Any:
        """D_t, a state."""
        kind = self.state_type
        if self.drawn:
            return kind(*columns(controls, self.field_sizes))
        xp = namespace(*like)
        return kind(*(xp.full_like(x, self.state if k else self.hidden) for k, x in enumerate(like)))

    def log_retention(self, before: Any, a: Array) -> Array:
        """Ln of the share of the old state that is left, by being kept and along the gate."""
        controls = self.split(a)[1]
        gate = self.cell.log_retention(*self.inner(before, a))
        kept = self._kept(controls, self.state_type(*(gate for _ in self.state_type._fields)))
        return log(_mixed(getattr(kept, "cell", kept.hidden), 1.0, exp(gate)))

    def update(self, before: Any, a: Array) -> Any:
        own, controls = self.split(a)
        return map_tree(_mixed, self._kept(controls, before), before, self.cell.update(before, own))

    def linearise(self, params: Any, before: Any, a: Array, after: Any) -> ZoneoutSlopes:
        own, controls = self.split(a)
        new = self.cell.update(before, own)
        return ZoneoutSlopes(self.cell.linearise(params, before, own, new), new, self._kept(controls, after))

    def push(self, params: Any, slopes: ZoneoutSlopes, tangent: Any, x_tangent: Array | None) -> Any:
        own = None if x_tangent is None else self.split(x_tangent)[0]
        moved = self.cell.push(params, slopes.inner, tangent, own)
        still = map_tree(namespace(*moved).zeros_like, moved) if tangent is None else tangent
        return map_tree(_mixed, slopes.kept, still, moved)

    def total_cotangent(self, transposed: Any, slopes: ZoneoutSlopes, cotangent: Any) -> Any:
        return cotangent  # no field after is computed from another field after

    def pull(self, transposed: Any, slopes: ZoneoutSlopes, cotangent: Any) -> tuple[Any, Array]:
        moved, d_a = self.cell.pull(transposed, slopes.inner, _moving(slopes, cotangent))
        return map_tree(_plus_kept, slopes.kept, cotangent, moved), self.padded(d_a)

    def straight(self, transposed: Any, slopes: ZoneoutSlopes, cotangent: Any) -> Any:
        moved = self.cell.straight(transposed, slopes.inner, _moving(slopes, cotangent))
        return map_tree(_plus_kept, slopes.kept, cotangent, moved)

    def preactivation_cotangent(self, transposed: Any, slopes: ZoneoutSlopes, cotangent: Any) -> Array:
        moving = _moving(slopes, cotangent)
        return self.padded(self.cell.preactivation_cotangent(transposed, slopes.inner, moving))

    def ways(self, transposed: Any, slopes: ZoneoutSlopes, a_cotangent: Array) -> dict[str, Any]:
        return self.cell.ways(transposed, slopes.inner, self.split(a_cotangent)[0])

    def pairs(
        self, slopes: ZoneoutSlopes, before: Any, x: Array, a_cotangent: Array
    ) -> tuple[tuple[Array, Array], ...]:
        return self.cell.pairs(slopes.inner, before, self.split(x)[0], self.split(a_cotangent)[0])

    def parameter_cotangent(
        self, slopes: ZoneoutSlopes, before: Any, x: Array, after: Any, a_cotangent: Array
    ) -> Any:
        own, x = self.split(a_cotangent)[0], self.split(x)[0]
        return self.cell.parameter_cotangent(slopes.inner, before, x, slopes.after, own)


def _mixed(kept: Array, old: Any, new: Array) -> Array:
    return kept * old + (1 - kept) * new


def _plus_kept(kept: Array, cotangent: Array, moved: Array) -> Array:
    return moved + kept * cotangent


def _moving(slopes: ZoneoutSlopes, cotangent: Any) -> Any:
    return map_tree(lambda kept, x: (1 - kept) * x, slopes.kept, cotangent)
