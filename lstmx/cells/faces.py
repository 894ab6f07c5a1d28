"""What follows of a cell's layout, its slopes and its recurrence: tangents forward, cotangents backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import Array, columns, map_tree, namespace, solve
from lstmx.cells.recurrence import joined, plus


class Faces:
    """The linear maps of one step; `Cell` says what they are made of."""

    input_size: int
    field_sizes: Any
    state_type: Any
    layout: Any
    recurrence: Any
    way_names: Any
    parameter_shapes: Any
    state_size: Any

    # ------------------------------------------------------------------------------------ forward

    def push(self, params: Any, slopes: Any, tangent: Any, x_tangent: Array | None) -> Any:
        """A tangent of the state before and of x, pushed forward to the state after; None for a zero tangent."""
        layout = self.layout
        parts = self.recurrence.tangent(params, slopes, tangent, x_tangent)
        moved: dict[str, Any] = dict.fromkeys(self.state_type._fields)
        for name, (into, block) in layout.from_blocks.items():
            moved[into] = plus(moved.get(into), _times(parts[block], getattr(slopes, name)))
        for name, (into, source) in layout.from_before.items():
            old = None if tangent is None else getattr(tangent, source)
            moved[into] = plus(moved.get(into), _times(old, getattr(slopes, name)))
        for name, (into, source) in reversed(layout.from_after.items()):
            if moved[source] is not None:
                moved[into] = plus(moved.get(into), self.led(name, params, slopes, moved[source]))
        return self._state(moved)

    def led(self, name: str, params: Any, slopes: Any, tangent: Array) -> Array:
        """A tangent of the source of a factor in the layout's `from_after`, led to where it leads."""
        del params
        return tangent * getattr(slopes, name)

    def jacobian(self, params: Any, slopes: Any) -> Array:
        """∂s_t/∂s_{t-1}, [*batch, S, S], of the joint state (fields of `state_type` in their order)."""
        xp = namespace(*params, *slopes)
        unit = xp.eye(self.state_size, dtype=params[0].dtype)
        units = self.state_type(*columns(unit, self.field_sizes))
        return _matrix(self.push(params, _for_rows(slopes), units, None))

    def input_jacobian(self, params: Any, slopes: Any) -> Array:
        """∂s_t/∂x_t, [*batch, S, D], of the joint state."""
        unit = namespace(*params, *slopes).eye(self.input_size, dtype=params[0].dtype)
        return _matrix(self.push(params, _for_rows(slopes), None, unit))

    def newton_step(self, params: Any, slopes: Any, residual: Any) -> Any:
        """Newton's step to a fixed point: (I − J)⁻¹ times the residual F(s) − s, fields [*batch, H]."""
        jacobian = self.jacobian(params, slopes)
        xp = namespace(jacobian)
        matrix = xp.eye(self.state_size, dtype=jacobian.dtype) - jacobian
        return self.state_type(*columns(solve(matrix, xp.concat(residual, axis=-1)), self.field_sizes))

    # ------------------------------------------------------------------------------------ backward

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of the state before that pre-activations depend on."""
        return self.recurrence.reads

    def pairs(self, slopes: Any, before: Any, x: Array, a_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        """What the recurrent kernel's cotangent is made of: its columns are Σ leftᵀ right of each pair in turn.

        In a cell without a recurrent kernel: the input kernel's.
        """
        return self.recurrence.pairs(slopes, before, x, a_cotangent)

    def transposed(self, params: Any) -> Any:
        """What a loop that walks back prepares once: the recurrent kernel's transpose, in most cells."""
        return self.recurrence.transposed(params)

    def pull(self, transposed: Any, slopes: Any, cotangent: Any) -> tuple[Any, Array]:
        """A cotangent of the state after, pulled back to the state before; and the one of a_t."""
        total = self._total(transposed, slopes, cotangent)
        d_a = self._preactivation_cotangent(transposed, slopes, total)
        old = self._straight(slopes, total)
        for field, part in self.recurrence.back(transposed, slopes, d_a).items():
            old[field] = part if old[field] is None else old[field] + part
        return self._state(old, cotangent), d_a

    def total_cotangent(self, transposed: Any, slopes: Any, cotangent: Any) -> Any:
        """∂L/∂(each state field), its ways through the other fields of the same step included.

        The cotangent of the joint state takes its fields as independent coordinates; this one does not.
        """
        total = self._total(transposed, slopes, cotangent)
        return self.state_type(*(total[name] for name in self.state_type._fields))

    def straight(self, transposed: Any, slopes: Any, cotangent: Any) -> Any:
        """The part of `pull` that passes no pre-activation: what the old state gets directly."""
        return self._state(self._straight(slopes, self._total(transposed, slopes, cotangent)), cotangent)

    def preactivation_cotangent(self, transposed: Any, slopes: Any, cotangent: Any) -> Array:
        """The cotangent of the pre-activations a_t, [*batch, blocks·H], alone."""
        total = self._total(transposed, slopes, cotangent)
        return self._preactivation_cotangent(transposed, slopes, total)

    def led_back(self, name: str, transposed: Any, slopes: Any, cotangent: Array) -> Array:
        """The transposed of `led`."""
        del transposed
        return cotangent * getattr(slopes, name)

    def ways(self, transposed: Any, slopes: Any, a_cotangent: Array) -> dict[str, Any]:
        """The part of `pull` that passes each block of pre-activations, as a cotangent of the state before."""
        like = self.state_type(*(a_cotangent[..., :size] for size in self.field_sizes))
        found = self.recurrence.ways(transposed, slopes, a_cotangent)
        fields = self.state_type._fields
        return {
            name: self._state({field: way.get(field) for field in fields}, like)
            for name, way in zip(self.way_names, found, strict=True)
        }

    def input_cotangent(self, params: Any, a_cotangent: Array) -> Array:
        """The cotangent of x [*batch, D], from the one of the pre-activations."""
        return self.recurrence.input_side(a_cotangent) @ params.input_kernel.T

    def parameter_cotangent(self, slopes: Any, before: Any, x: Array, after: Any, a_cotangent: Array) -> Any:
        """The parameters' cotangent, summed over all leading axes of the arguments."""
        kind = type(self.parameter_shapes())
        return kind(**self.recurrence.parameters(slopes, before, x, after, a_cotangent))

    def _total(self, transposed: Any, slopes: Any, cotangent: Any) -> dict[str, Any]:
        """`total_cotangent` by name, with that of what stands between two fields."""
        total = cotangent._asdict()
        for name, (into, source) in self.layout.from_after.items():
            total[source] = plus(total.get(source), self.led_back(name, transposed, slopes, total[into]))
        return total

    def _straight(self, slopes: Any, total: Any) -> dict[str, Any]:
        """`straight` from the total cotangent, field by field; None for a field that gets nothing."""
        old: dict[str, Any] = dict.fromkeys(self.state_type._fields)
        for name, (into, source) in self.layout.from_before.items():
            old[source] = plus(old[source], total[into] * getattr(slopes, name))
        return old

    def _preactivation_cotangent(self, transposed: Any, slopes: Any, total: Any) -> Array:
        layout = self.layout
        direct: list[Any] = [None] * len(layout.blocks)
        for name, (into, block) in layout.from_blocks.items():
            direct[block] = plus(direct[block], total[into] * getattr(slopes, name))
        for field, block in layout.shown:
            direct[block] = total[field]
        return joined(self.recurrence.cotangent(transposed, slopes, direct))

    def _state(self, fields: dict[str, Any], like: Any = None) -> Any:
        """A state of these fields; zeros for None, with the leading axes of `like` or of any other field."""
        values = [fields[name] for name in self.state_type._fields]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            model = known[0] if like is None else like[0]
            xp, lead, dtype = namespace(model), model.shape[:-1], model.dtype
            for k, size in enumerate(self.field_sizes):
                values[k] = xp.zeros((*lead, size), dtype=dtype) if values[k] is None else values[k]
        return self.state_type(*values)


def _times(tangent: Array | None, slope: Array) -> Array | None:
    return None if tangent is None else tangent * slope


def _matrix(tangents: Any) -> Array:
    """A Jacobian from the tangents of unit vectors, in rows: fields [*batch, rows, H] -> [*batch, S, rows]."""
    xp = namespace(*tangents)
    lead = np.broadcast_shapes(*(field.shape[:-1] for field in tangents))
    whole = [xp.broadcast_to(field, (*lead, field.shape[-1])) for field in tangents]
    return xp.swapaxes(xp.concat(whole, axis=-1), -1, -2)


def _for_rows(slopes: Any) -> Any:
    """Slopes [*batch, H] as [*batch, 1, H], for tangents [rows, H] or [*batch, rows, H]."""
    return map_tree(lambda x: x[..., None, :], slopes)
