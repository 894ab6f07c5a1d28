"""What follows of a cell's layout, its slopes and its recurrence: tangents forward, cotangents backward."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import Array, map_tree, namespace, solve
from lstmx.cells.recurrence import blocks, joined, plus


class Faces:
    """The linear maps of one step; `Cell` says what they are made of."""

    input_size: int
    hidden_size: int
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
            moved[into] = plus(moved[into], _times(parts[block], getattr(slopes, name)))
        for name, (into, source) in layout.from_before.items():
            old = None if tangent is None else getattr(tangent, source)
            moved[into] = plus(moved[into], _times(old, getattr(slopes, name)))
        for name, (into, source) in reversed(layout.from_after.items()):
            moved[into] = plus(moved[into], _times(moved[source], getattr(slopes, name)))
        return self._state(moved)

    def jacobian(self, params: Any, slopes: Any) -> Array:
        """∂s_t/∂s_{t-1}, [*batch, S, S], of the joint state (fields of `state_type` in their order)."""
        xp = namespace(*params, *slopes)
        unit = xp.eye(self.state_size, dtype=params[0].dtype)
        columns = self.push(params, _for_rows(slopes), self.state_type(*blocks(unit, self.hidden_size)), None)
        return _matrix(columns)

    def input_jacobian(self, params: Any, slopes: Any) -> Array:
        """∂s_t/∂x_t, [*batch, S, D], of the joint state."""
        unit = namespace(*params, *slopes).eye(self.input_size, dtype=params[0].dtype)
        return _matrix(self.push(params, _for_rows(slopes), None, unit))

    def newton_step(self, params: Any, slopes: Any, residual: Any) -> Any:
        """Newton's step to a fixed point: (I − J)⁻¹ times the residual F(s) − s, fields [*batch, H]."""
        jacobian = self.jacobian(params, slopes)
        xp = namespace(jacobian)
        matrix = xp.eye(self.state_size, dtype=jacobian.dtype) - jacobian
        return self.state_type(*blocks(solve(matrix, xp.concat(residual, axis=-1)), self.hidden_size))

    # ------------------------------------------------------------------------------------ backward

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of the state before that pre-activations depend on."""
        return self.recurrence.reads

    def active(self, a: Array) -> Array | None:
        """Whether the state moves at a step, [*batch]; None where it always does."""
        del a
        return None

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
        total = self.total_cotangent(slopes, cotangent)
        d_a = self._preactivation_cotangent(transposed, slopes, total)
        old = self._straight(slopes, total)
        for field, part in self.recurrence.back(transposed, slopes, d_a).items():
            old[field] = part if old[field] is None else old[field] + part
        return self._state(old, total), d_a

    def total_cotangent(self, slopes: Any, cotangent: Any) -> Any:
        """∂L/∂(each state field), its ways through the other fields of the same step included.

        The cotangent of the joint state takes its fields as independent coordinates; this one does not.
        """
        if not self.layout.from_after:
            return cotangent
        total = cotangent._asdict()
        for name, (into, source) in self.layout.from_after.items():
            total[source] = total[source] + total[into] * getattr(slopes, name)
        return self.state_type(**total)

    def straight(self, slopes: Any, cotangent: Any) -> Any:
        """The part of `pull` that passes no pre-activation: what the old state gets directly."""
        total = self.total_cotangent(slopes, cotangent)
        return self._state(self._straight(slopes, total), total)

    def preactivation_cotangent(self, transposed: Any, slopes: Any, cotangent: Any) -> Array:
        """The cotangent of the pre-activations a_t, [*batch, blocks·H], alone."""
        return self._preactivation_cotangent(transposed, slopes, self.total_cotangent(slopes, cotangent))

    def ways(self, transposed: Any, slopes: Any, a_cotangent: Array) -> dict[str, Any]:
        """The part of `pull` that passes each block of pre-activations, as a cotangent of the state before."""
        like = self.state_type(*(a_cotangent[..., : self.hidden_size] for _ in self.state_type._fields))
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

    def _straight(self, slopes: Any, total: Any) -> dict[str, Any]:
        """`straight` from the total cotangent, field by field; None for a field that gets nothing."""
        old: dict[str, Any] = dict.fromkeys(self.state_type._fields)
        for name, (into, source) in self.layout.from_before.items():
            old[source] = plus(old[source], getattr(total, into) * getattr(slopes, name))
        return old

    def _preactivation_cotangent(self, transposed: Any, slopes: Any, total: Any) -> Array:
        layout = self.layout
        direct: list[Any] = [None] * len(layout.blocks)
        for name, (into, block) in layout.from_blocks.items():
            direct[block] = plus(direct[block], getattr(total, into) * getattr(slopes, name))
        return joined(self.recurrence.cotangent(transposed, slopes, direct))

    def _state(self, fields: dict[str, Any], like: Any = None) -> Any:
        """A state of these fields; zeros for None, of the form of `like` or of any other field."""
        if all(value is not None for value in fields.values()):
            return self.state_type(**fields)
        known = next((value for value in fields.values() if value is not None), None)

        def value(name: str) -> Array:
            model = known if like is None else getattr(like, name)
            return namespace(model).zeros_like(model) if fields[name] is None else fields[name]

        return self.state_type(**{name: value(name) for name in fields})


def _times(tangent: Array | None, slope: Array) -> Array | None:
    return None if tangent is None else tangent * slope


def _matrix(columns: Any) -> Array:
    """A Jacobian from the tangents of unit vectors, in rows: fields [*batch, rows, H] -> [*batch, S, rows]."""
    xp = namespace(*columns)
    return xp.swapaxes(xp.concat(xp.broadcast_arrays(*columns), axis=-1), -1, -2)


def _for_rows(slopes: Any) -> Any:
    """Slopes [*batch, H] as [*batch, 1, H], for tangents [rows, H] or [*batch, rows, H]."""
    return map_tree(lambda x: x[..., None, :], slopes)
