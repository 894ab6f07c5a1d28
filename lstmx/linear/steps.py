"""`LinearSteps`: a pass as linear maps, one for each step. Every analysis is written on it, and knows no cell.

The joint state of a step is one vector of S numbers, the fields of the cell's state side by side. With s_t the
state after step t and d_t the drive, what reaches the pre-activations of the step, each step has two linear maps:
J_t = ∂s_t/∂s_{t-1} and ∂s_t/∂d_t. A cotangent goes one step back by `vjp`, a tangent one step forward by `jvp`.

Kinds: of a cell in closed form, of a step function by JAX, of given matrices; of a stack as one joint state; and
one around any other, for steps that do not count, that start a sequence, or at which Zoneout keeps a part of the
state.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, overload

import numpy as np

from lstmx.arrays import Array, columns, jax, jit, leaves, map_tree, namespace, result, solve
from lstmx.cells.base import Cell, passed_on
from lstmx.cells.recurrence import joined, plus
from lstmx.cells.step_function import StepFunction
from lstmx.cells.zoneout import packed_rates
from lstmx.checks import array, jacobian_array, require_history
from lstmx.history import Controls, History
from lstmx.layers import BidirectionalHistory, StackHistory


class LinearSteps(ABC):
    """A stretch of steps as linear maps.

    All arrays have the axes of the steps in front, [T, *batch], here [*lead]; `steps[t]` is one step, without the
    axis of time, and `steps[a:b]` a stretch. A cotangent or tangent of the joint state is an array [*lead, S]; it
    may have more axes in front, which are maps of several vectors at once.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """S, the numbers in the joint state."""

    @property
    @abstractmethod
    def rows(self) -> tuple[Any, ...]:
        """What the steps are made of, a tree of arrays [*lead, ...]: for a loop over time."""

    @abstractmethod
    def at(self, rows: tuple[Any, ...]) -> Self:
        """The same kind of maps made of other rows, such as those of one step."""

    @abstractmethod
    def pull(self, cotangent: Array) -> tuple[Array, Array]:
        """`vjp`, unchecked: what loops call."""

    @abstractmethod
    def push(self, tangent: Array | None, x_tangent: Array | None = None) -> Array:
        """`jvp`, unchecked."""

    def vjp(self, cotangent: Array) -> tuple[Array, Array]:
        """One step back: J_tᵀ v, [*lead, S], and the cotangent of the drive, [*lead, …].

        Args:
            cotangent: v, [*lead, S], in the library and dtype of the steps.

        Raises:
            TypeError: v is no array, or one of another library or dtype.
            ValueError: v has another shape.
        """
        self._check("cotangent", cotangent, self.size)
        return self.pull(cotangent)

    def jvp(self, tangent: Array | None, x_tangent: Array | None = None) -> Array:
        """One step forward: J_t u + ∂s_t/∂x_t u_x, [*lead, S].

        Args:
            tangent: u, [*lead, S], in the library and dtype of the steps; None for zero.
            x_tangent: u_x, [*lead, D]; None for zero, but not both.

        Raises:
            TypeError: u or u_x is no array, or one of another library or dtype; both are None; or u_x is given to
                matrices, which have no inputs.
            ValueError: u or u_x has another shape.
        """
        if tangent is not None:
            self._check("tangent", tangent, self.size)
        if x_tangent is not None:
            if not isinstance(self, PassSteps):
                raise TypeError(
                    "x_tangent is given; matrices alone have no inputs: expected a tangent of the state"
                )
            self._check("x_tangent", x_tangent, self.input_size)
        if tangent is None and x_tangent is None:
            raise TypeError("tangent and x_tangent are both None; expected one of them at least")
        return self.push(tangent, x_tangent)

    def _check(self, name: str, vector: Any, size: int) -> None:
        """Raise unless a vector of `size` numbers is one for these steps."""
        array(name, vector)
        xp, dtype = self._form
        if vector.dtype != dtype:
            raise TypeError(f"{name} is {vector.dtype}; expected {dtype}, as the steps are")
        if namespace(vector) is not xp:
            raise TypeError(f"{name} is a {type(vector).__name__}; expected one of the library of the steps")
        expected = (*self.lead, size)
        if tuple(vector.shape[-len(expected) :]) != expected:
            raise ValueError(f"{name} has shape {tuple(vector.shape)}; expected {expected}, one of each step")

    @abstractmethod
    def spread(self) -> Any:
        """The same maps with a new axis behind [*lead], for several vectors side by side: [*lead, k, S]."""

    def __len__(self) -> int:
        return len(next(leaves(self.rows)))

    def __getitem__(self, steps: int | slice) -> Self:
        """One step, or a stretch of steps.

        Raises:
            TypeError: neither an integer nor a slice.
        """
        if not isinstance(steps, slice) and not hasattr(steps, "__index__"):
            raise TypeError(f"steps[{steps!r}]; expected an integer or a slice of time")
        if not isinstance(steps, slice) and not -len(self) <= steps < len(self):
            raise IndexError(f"step {steps} is outside the {len(self)} steps")
        return self.at(map_tree(lambda x: x[steps], self.rows))

    def matrices(self) -> Array:
        """J_t, [*lead, S, S]: row i, column j is ∂s_t[i]/∂s_{t-1}[j]."""
        xp, dtype = self._form
        spread = self.spread()
        return xp.swapaxes(_whole(self.lead, spread.push(xp.eye(self.size, dtype=dtype))), -1, -2)

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes in front, [T, *batch]."""
        return tuple(next(leaves(self.rows)).shape[:-1])

    @property
    def _form(self) -> tuple[Any, Any]:
        """The library and dtype of the maps."""
        first = next(leaves(self.rows))
        return namespace(first), first.dtype

    def log_determinant(self) -> Array | None:
        """Ln |det J_t| [*lead] in closed form; None where there is none."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size} × {self.size}, [*lead] = {self.lead})"


class PassSteps(LinearSteps):
    """The steps of a recorded pass: what they have beside the maps of the joint state.

    A cotangent of the drive is what `vjp` and `drive_vjp` give; from it come those of inputs and parameters.
    """

    retention_gate: str | None = None
    """The gate along which the old state is kept; None where there is none."""

    held: Array | None = None
    """Where the state stands still, booleans [*lead, 1]; None for nowhere."""

    output_is_linear: bool = True
    """Whether the output is a part of the state, so that `inject` is the same at every step."""

    @abstractmethod
    def inject(self, outputs_cotangent: Array) -> Array:
        """The cotangent of the state after [*lead, S] that one of the outputs [*lead, H] is."""

    @abstractmethod
    def shown(self, tangent: Array) -> Array:
        """The tangent of the outputs [*lead, H] that one of the state after is."""

    @abstractmethod
    def drive_vjp(self, cotangent: Array) -> Array:
        """The cotangent of the drive alone, [*lead, …]."""

    @abstractmethod
    def input_vjp(self, drive_cotangent: Array) -> Array:
        """The cotangent of x_t, [*lead, D]."""

    @abstractmethod
    def parameter_vjp(self, drive_cotangent: Array) -> Any:
        """The parameters' cotangent, summed over all leading axes."""

    @property
    @abstractmethod
    def input_size(self) -> int:
        """D, the features of x_t."""

    @property
    @abstractmethod
    def drive_size(self) -> int:
        """Numbers in the drive of a step."""

    def input_matrices(self) -> Array:
        """∂s_t/∂x_t, [*lead, S, D]."""
        xp, dtype = self._form
        unit = xp.eye(self.input_size, dtype=dtype)
        return xp.swapaxes(_whole(self.lead, self.spread().push(None, unit)), -1, -2)

    def onward(self, cotangent: Array) -> Array:
        """What of a cotangent of the state after reaches the step itself, where it moves and nothing is kept."""
        return cotangent

    # Parts that a cell in closed form has.

    def fields(self, cotangent: Array) -> dict[str, Array]:
        """A cotangent of the joint state by field, [*lead, H], fields taken as independent coordinates.

        Of a step function that of its output, as `hidden`; nothing where the output is no part of the state.
        """
        raise NotImplementedError

    def totals(self, cotangent: Array) -> dict[str, Array]:
        """∂L/∂(each field of the state after), its ways through the other fields of the same step included.

        What `fields` has takes them as independent coordinates; this does not.
        """
        return self.fields(cotangent)

    def along_state(self, cotangent: Array) -> Array:
        """The part of `vjp` that passes no pre-activation, [*lead, S]: what the old state gets directly."""
        raise NotImplementedError

    def by_gate(self, drive_cotangent: Array) -> dict[str, Array]:
        """The part of `vjp` that passes each block of pre-activations, [*lead, S] by name."""
        raise NotImplementedError

    def outer_pairs(self, drive_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        """What the recurrent kernel's cotangent is made of: its columns are Σ leftᵀ right of each pair in turn.

        In a cell without a recurrent kernel: the input kernel's.
        """
        raise NotImplementedError

    def newton_step(self, residual: Array) -> Array:
        """Newton's step to a fixed point: (I − J)⁻¹ times the residual F(s) − s, [*lead, S]."""
        matrices = self.matrices()
        return solve(namespace(matrices).eye(self.size, dtype=matrices.dtype) - matrices, residual)


@result(static=("side_by_side",))
class MatrixSteps(LinearSteps):
    """Maps that are given as matrices.

    Attributes:
        given: J_t, [T, *batch, S, S].
        side_by_side: whether vectors stand in rows, [*lead, k, S], as `spread` has them.
    """

    given: Array
    side_by_side: bool = False

    @property
    def size(self) -> int:
        return self.given.shape[-1]

    @property
    def lead(self) -> tuple[int, ...]:
        return tuple(self.given.shape[:-2])

    @property
    def rows(self) -> tuple[Any, ...]:
        return (self.given,)

    def at(self, rows: tuple[Any, ...]) -> MatrixSteps:
        return MatrixSteps(*rows, side_by_side=self.side_by_side)

    def pull(self, cotangent: Array) -> tuple[Array, Array]:
        return (cotangent[..., None, :] @ self.given)[..., 0, :], cotangent

    def push(self, tangent: Any, x_tangent: Array | None = None) -> Array:
        if self.side_by_side:
            return tangent @ namespace(self.given).swapaxes(self.given, -1, -2)
        return (self.given @ tangent[..., None])[..., 0]

    def spread(self) -> MatrixSteps:
        return MatrixSteps(self.given, side_by_side=True)

    def matrices(self) -> Array:
        return self.given


@result(static=("cell",))
class CellSteps(PassSteps):
    """The steps of a cell whose derivatives are known in closed form.

    Attributes:
        cell: the cell.
        params: its parameters.
        transposed: what walks back need of these, made once.
        slopes: the factors of each J_t, unit by unit, fields [*lead, H].
        before: the state before each step.
        inputs: x_t.
        after: the state after each step.
    """

    cell: Cell
    params: Any
    transposed: Any
    slopes: Any
    before: Any
    inputs: Any
    after: Any

    retention_gate = passed_on("cell.retention_gate")

    @property
    def size(self) -> int:
        return self.cell.state_size

    @property
    def input_size(self) -> int:
        return self.cell.input_size

    @property
    def rows(self) -> tuple[Any, ...]:
        return self.slopes, self.before, self.inputs, self.after

    def at(self, rows: tuple[Any, ...]) -> CellSteps:
        return CellSteps(self.cell, self.params, self.transposed, *rows)

    def pull(self, cotangent: Array) -> tuple[Array, Array]:
        total = self._total(cotangent)
        d_a, old = self._drive(total), self._straight(total)
        for field, part in self.cell.recurrence.back(self.transposed, self.slopes, d_a).items():
            old[field] = plus(old[field], part)
        return self._joint(old, cotangent), d_a

    def push(self, tangent: Array | None, x_tangent: Array | None = None) -> Array:
        layout, wires, slopes = self.cell.layout, self.cell.recurrence, self.slopes
        state = None if tangent is None else self.cell.unpack(tangent)
        blocks = wires.tangent(self.params, slopes, state, x_tangent)
        moved: dict[str, Any] = dict.fromkeys(self.cell.state_type._fields)
        for name, (into, block) in layout.from_blocks.items():
            if blocks[block] is not None:
                moved[into] = plus(moved.get(into), blocks[block] * getattr(slopes, name))
        for name, (into, source) in layout.from_before.items() if state is not None else ():
            moved[into] = plus(moved.get(into), getattr(state, source) * getattr(slopes, name))
        for name, (into, source) in reversed(layout.from_after.items()):
            if moved[source] is not None:
                moved[into] = plus(moved.get(into), wires.led(name, self.params, slopes, moved[source]))
        return self._joint(moved, next(part for part in moved.values() if part is not None))

    def _total(self, cotangent: Array) -> dict[str, Array]:
        """`totals`, with that of what stands between two fields."""
        total, back = self.fields(cotangent), self.cell.recurrence.led_back
        for name, (into, source) in self.cell.layout.from_after.items():
            total[source] = plus(total.get(source), back(name, self.transposed, self.slopes, total[into]))
        return total

    def _straight(self, total: dict[str, Array]) -> dict[str, Any]:
        """`along_state` by field, from `_total`; None for a field that gets nothing."""
        old: dict[str, Any] = dict.fromkeys(self.cell.state_type._fields)
        for name, (into, source) in self.cell.layout.from_before.items():
            old[source] = plus(old[source], total[into] * getattr(self.slopes, name))
        return old

    def _drive(self, total: dict[str, Array]) -> Array:
        """`drive_vjp` from `_total`."""
        layout = self.cell.layout
        direct: list[Any] = [None] * len(layout.blocks)
        for name, (into, block) in layout.from_blocks.items():
            direct[block] = plus(direct[block], total[into] * getattr(self.slopes, name))
        for field, block in layout.shown:
            direct[block] = total[field]
        return joined(self.cell.recurrence.cotangent(self.transposed, self.slopes, direct))

    def _joint(self, fields: dict[str, Any], like: Array) -> Array:
        """Fields of the joint state side by side; zeros with the leading axes of `like` for one that is None."""
        parts = [fields.get(name) for name in self.cell.state_type._fields]
        for k, size in enumerate(self.cell.field_sizes):
            if parts[k] is None:
                parts[k] = namespace(like).zeros((*like.shape[:-1], size), dtype=like.dtype)
        return self.cell.pack(parts)

    def spread(self) -> CellSteps:
        return self.at((map_tree(lambda x: x[..., None, :], self.slopes), None, None, None))

    def log_determinant(self) -> Array | None:
        return self.cell.log_determinant(self.params, self.slopes)

    def inject(self, outputs_cotangent: Array) -> Array:
        return self._joint({"hidden": outputs_cotangent}, outputs_cotangent)

    def shown(self, tangent: Array) -> Array:
        return tangent[..., : self.cell.output_size]

    def drive_vjp(self, cotangent: Array) -> Array:
        return self._drive(self._total(cotangent))

    def input_vjp(self, drive_cotangent: Array) -> Array:
        return self.cell.recurrence.input_side(drive_cotangent) @ self.params.input_kernel.T

    def parameter_vjp(self, drive_cotangent: Array) -> Any:
        rows = self.slopes, self.before, self.inputs, self.after
        return type(self.params)(**self.cell.recurrence.parameters(*rows, drive_cotangent))

    @property
    def drive_size(self) -> int:
        return self.cell.preactivation_size

    def fields(self, cotangent: Array) -> dict[str, Array]:
        return self.cell.unpack(cotangent)._asdict()

    def totals(self, cotangent: Array) -> dict[str, Array]:
        total = self._total(cotangent)
        return {name: total[name] for name in self.cell.state_type._fields}

    def along_state(self, cotangent: Array) -> Array:
        return self._joint(self._straight(self._total(cotangent)), cotangent)

    def by_gate(self, drive_cotangent: Array) -> dict[str, Array]:
        ways = self.cell.recurrence.ways(self.transposed, self.slopes, drive_cotangent)
        return {
            name: self._joint(way, drive_cotangent) for name, way in zip(self.cell.way_names, ways, strict=True)
        }

    def outer_pairs(self, drive_cotangent: Array) -> tuple[tuple[Array, Array], ...]:
        return self.cell.recurrence.pairs(self.slopes, self.before, self.inputs, drive_cotangent)

    def newton_step(self, residual: Array) -> Array:
        found = self.cell.newton_step(self.params, self.slopes, self.cell.unpack(residual))
        return super().newton_step(residual) if found is None else self.cell.pack(found)


@result(static=("cell",))
class FunctionSteps(PassSteps):
    """The steps of a step function, differentiated by JAX at each of them.

    The drive is the state after itself: what of it comes from x_t and the parameters is found from its cotangent.

    Attributes:
        cell: the step function.
        params: its parameters.
        before: the state before each step, a tree [*lead, ...].
        inputs: x_t, [*lead, D].
        after: the state after each step.
    """

    cell: StepFunction
    params: Any
    before: Any
    inputs: Any
    after: Any

    @property
    def size(self) -> int:
        return self.cell.state_size

    @property
    def input_size(self) -> int:
        return self.cell.input_size

    @property
    def output_is_linear(self) -> bool:  # type: ignore  # a constant of the class in the others
        return self.cell.output_at is not None

    @property
    def lead(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[:-1])

    @property
    def _form(self) -> tuple[Any, Any]:
        return namespace(self.inputs), self.inputs.dtype

    @property
    def rows(self) -> tuple[Any, ...]:
        return self.before, self.inputs, self.after

    def at(self, rows: tuple[Any, ...]) -> FunctionSteps:
        return FunctionSteps(self.cell, self.params, *rows)

    def pull(self, cotangent: Array) -> tuple[Array, Array]:
        packed, pull = self._packed(self.cell.pack(self.before), self.inputs)
        return _of_each(lambda v: pull(v)[0], cotangent, packed.ndim), cotangent

    def _packed(self, before: Array, x: Array) -> tuple[Array, Any]:
        """The packed state after, and its vjp with respect to the packed state before and x."""
        return jax.vjp(lambda before, x: self._after(self.params, before, x), before, x)

    def _after(self, params: Any, before: Array, x: Array) -> Array:
        return self.cell.pack(self.cell.next_state(params, self.cell.unpack(before), x))

    def push(self, tangent: Array | None, x_tangent: Array | None = None) -> Array:
        before = self.cell.pack(self.before)
        xp, ndim = namespace(before), before.ndim

        def push(u: Any, u_x: Any) -> Array:
            u = xp.zeros_like(before) if u is None else u
            u_x = xp.zeros_like(self.inputs) if u_x is None else u_x
            return jax.jvp(lambda s, x: self._after(self.params, s, x), (before, self.inputs), (u, u_x))[1]

        if tangent is None:
            return _of_each(lambda u_x: push(None, u_x), x_tangent, ndim)
        if x_tangent is None:
            return _of_each(lambda u: push(u, None), tangent, ndim)
        return push(tangent, x_tangent)

    def spread(self) -> LinearSteps:
        return _Spread(self)

    def inject(self, outputs_cotangent: Array) -> Array:
        after = self.cell.pack(self.after)
        pull = jax.vjp(lambda s: self.cell.output(self.cell.unpack(s)), after)[1]
        return _of_each(lambda v: pull(v)[0], outputs_cotangent, after.ndim)

    def shown(self, tangent: Array) -> Array:
        after = self.cell.pack(self.after)
        show = lambda s: self.cell.output(self.cell.unpack(s))  # noqa: E731
        return _of_each(lambda u: jax.jvp(show, (after,), (u,))[1], tangent, after.ndim)

    def drive_vjp(self, cotangent: Array) -> Array:
        return cotangent

    def input_vjp(self, drive_cotangent: Array) -> Array:
        packed, pull = self._packed(self.cell.pack(self.before), self.inputs)
        return _of_each(lambda v: pull(v)[1], drive_cotangent, packed.ndim)

    def parameter_vjp(self, drive_cotangent: Array) -> Any:
        before = self.cell.pack(self.before)
        pull = jax.vjp(lambda params: self._after(params, before, self.inputs), self.params)[1]
        return pull(drive_cotangent)[0]

    @property
    def drive_size(self) -> int:
        return self.cell.state_size

    def fields(self, cotangent: Array) -> dict[str, Array]:
        at = self.cell.output_at
        return {} if at is None else {"hidden": cotangent[..., at]}


@result
class ControlledSteps(PassSteps):
    """The steps of another kind, at which the state may stand still, start anew, or be kept in part.

        s_t = hold_t ? s_{t-1} : d_t ∘ r_t + (1 − d_t) ∘ F(r_t, x_t),    r_t = reset_t ? s_0 : s_{t-1}

    Attributes:
        inner: those of F.
        hold: booleans [*lead, 1]; None for nowhere.
        reset: booleans [*lead, 1]; None for nowhere.
        kept: d_t, [*lead, S]; None for nothing.
        rates: d of all steps, [S], where nothing was drawn; None for nothing.
    """

    inner: Any
    hold: Array | None
    reset: Array | None
    kept: Array | None
    rates: Array | None

    output_is_linear = passed_on("inner.output_is_linear")
    retention_gate = passed_on("inner.retention_gate")
    inject = passed_on("inner.inject")
    shown = passed_on("inner.shown")
    input_vjp = passed_on("inner.input_vjp")
    parameter_vjp = passed_on("inner.parameter_vjp")
    fields = passed_on("inner.fields")
    outer_pairs = passed_on("inner.outer_pairs")

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def input_size(self) -> int:
        return self.inner.input_size

    @property
    def lead(self) -> tuple[int, ...]:
        return self.inner.lead

    @property
    def _form(self) -> tuple[Any, Any]:
        return self.inner._form

    @property
    def rows(self) -> tuple[Any, ...]:
        return self.inner.rows, self.hold, self.reset, self.kept

    def at(self, rows: tuple[Any, ...]) -> ControlledSteps:
        return ControlledSteps(self.inner.at(rows[0]), *rows[1:], rates=self.rates)

    @property
    def held(self) -> Array | None:  # type: ignore  # a constant of the class in the others
        return self.hold

    @property
    def _share(self) -> Array | None:
        """What is kept of each number of the state."""
        return self.rates if self.kept is None else self.kept

    def onward(self, cotangent: Array) -> Array:
        return self._split(cotangent)[1]

    def pull(self, cotangent: Array) -> tuple[Array, Array]:
        moving, onward = self._split(cotangent)
        before, drive = self.inner.pull(onward)
        return self._joined(cotangent, moving, before), drive

    def _split(self, cotangent: Array) -> tuple[Array, Array]:
        """A cotangent where the state moves, and what of it goes on to the inner step."""
        moving = cotangent if self.hold is None else _zero_where(self.hold, cotangent)
        return moving, moving if self._share is None else (1 - self._share) * moving

    def _joined(self, cotangent: Array, moving: Array, before: Array) -> Array:
        """The cotangent of the state before, from that of the inner step's."""
        if self._share is not None:
            before = before + self._share * moving
        if self.hold is not None:
            before = namespace(before).where(self.hold, cotangent, before)
        return before if self.reset is None else _zero_where(self.reset, before)

    def push(self, tangent: Array | None, x_tangent: Array | None = None) -> Array:
        started = tangent
        if tangent is not None and self.reset is not None:
            started = _zero_where(self.reset, tangent)
        made = self.inner.push(started, x_tangent)
        if self._share is not None:
            moved = (1 - self._share) * made
            made = moved if started is None else self._share * started + moved
        if self.hold is None:
            return made
        return _zero_where(self.hold, made) if tangent is None else namespace(made).where(self.hold, tangent, made)

    def spread(self) -> ControlledSteps:
        flags = (None if x is None else x[..., None, :] for x in (self.hold, self.reset, self.kept))
        return ControlledSteps(self.inner.spread(), *flags, rates=self.rates)

    def log_determinant(self) -> Array | None:
        found = self.inner.log_determinant()
        if found is None or self._share is not None:
            return None
        xp = namespace(found)
        if self.hold is not None:
            found = xp.where(self.hold[..., 0], xp.zeros_like(found), found)
        return found if self.reset is None else xp.where(self.reset[..., 0], -xp.inf, found)

    def drive_vjp(self, cotangent: Array) -> Array:
        return self.inner.drive_vjp(self._split(cotangent)[1])

    @property
    def drive_size(self) -> int:
        return self.inner.drive_size

    def totals(self, cotangent: Array) -> dict[str, Array]:
        own = self.inner.fields(cotangent)
        if self._share is not None:  # what is mixed is computed from nothing else of the same step
            return own
        found = self.inner.totals(cotangent)
        if self.hold is None:
            return found
        return {name: namespace(x).where(self.hold, own[name], x) for name, x in found.items()}

    def along_state(self, cotangent: Array) -> Array:
        moving, onward = self._split(cotangent)
        return self._joined(cotangent, moving, self.inner.along_state(onward))

    def by_gate(self, drive_cotangent: Array) -> dict[str, Array]:
        found = self.inner.by_gate(drive_cotangent)
        return found if self.reset is None else {name: _zero_where(self.reset, x) for name, x in found.items()}


@result(static=("names",))
class StackSteps(PassSteps):
    """The steps of a stack as one system, whose joint state is that of all layers, the lowest first.

    Attributes:
        layers: the steps of each layer, bottom first.
        masks: what the outputs of each layer but the last are multiplied by, [*lead, H]; None for nothing.
        names: of the layers.
    """

    layers: tuple[Any, ...]
    masks: tuple[Any, ...] | None
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(self._sizes)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(layer.size for layer in self.layers)

    @property
    def input_size(self) -> int:
        return self.layers[0].input_size

    @property
    def lead(self) -> tuple[int, ...]:
        return self.layers[0].lead

    @property
    def _form(self) -> tuple[Any, Any]:
        return self.layers[0]._form

    @property
    def rows(self) -> tuple[Any, ...]:
        return tuple(layer.rows for layer in self.layers), self.masks

    def at(self, rows: tuple[Any, ...]) -> StackSteps:
        layers = (layer.at(own) for layer, own in zip(self.layers, rows[0], strict=True))
        return StackSteps(tuple(layers), rows[1], self.names)

    @property
    def held(self) -> Array | None:  # type: ignore  # a constant of the class in the others
        return self.layers[0].held

    @property
    def output_is_linear(self) -> bool:  # type: ignore  # as above
        return self.layers[-1].output_is_linear

    def _upward(self, k: int, x: Array) -> Array:
        """Outputs of layer k, or their cotangent, through the mask on their way up."""
        return x if self.masks is None else x * self.masks[k]

    def _down(self, cotangent: Array, each: Any) -> list[Any]:
        """What `each(layer, cotangent of its state after)` gives: a result and the cotangent of the drive."""
        parts, found = columns(cotangent, self._sizes), []
        for k in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[k]
            made, drive = each(layer, parts[k])
            found.insert(0, (made, drive))
            if k:
                parts[k - 1] = parts[k - 1] + self.layers[k - 1].inject(
                    self._upward(k - 1, layer.input_vjp(drive))
                )
        return found

    def pull(self, cotangent: Array) -> tuple[Array, Array]:
        made = self._down(cotangent, lambda layer, v: layer.pull(v))
        xp = namespace(cotangent)
        return xp.concat([before for before, _ in made], axis=-1), xp.concat([drive for _, drive in made], axis=-1)

    def push(self, tangent: Array | None, x_tangent: Array | None = None) -> Array:
        parts = [None] * len(self.layers) if tangent is None else columns(tangent, self._sizes)
        found: list[Array] = []
        for k, (layer, own) in enumerate(zip(self.layers, parts, strict=True)):
            below = x_tangent if k == 0 else self._upward(k - 1, self.layers[k - 1].shown(found[-1]))
            found.append(layer.push(own, below))
        lead = np.broadcast_shapes(*(x.shape[:-1] for x in found))
        xp = namespace(*found)
        return xp.concat([xp.broadcast_to(x, (*lead, x.shape[-1])) for x in found], axis=-1)

    def spread(self) -> StackSteps:
        masks = None if self.masks is None else tuple(mask[..., None, :] for mask in self.masks)
        return StackSteps(tuple(layer.spread() for layer in self.layers), masks, self.names)

    def log_determinant(self) -> Array | None:
        found = [layer.log_determinant() for layer in self.layers]  # J is block-triangular
        return None if any(x is None for x in found) else functools.reduce(lambda a, b: a + b, found)

    def inject(self, outputs_cotangent: Array) -> Array:
        xp = namespace(outputs_cotangent)
        top = self.layers[-1].inject(outputs_cotangent)
        return xp.concat([xp.zeros((*top.shape[:-1], sum(self._sizes[:-1])), dtype=top.dtype), top], axis=-1)

    def shown(self, tangent: Array) -> Array:
        return self.layers[-1].shown(columns(tangent, self._sizes)[-1])

    def drive_vjp(self, cotangent: Array) -> Array:
        made = self._down(cotangent, lambda layer, v: (None, layer.drive_vjp(v)))
        return namespace(cotangent).concat([drive for _, drive in made], axis=-1)

    def input_vjp(self, drive_cotangent: Array) -> Array:
        return self.layers[0].input_vjp(self._drives(drive_cotangent)[0])

    def parameter_vjp(self, drive_cotangent: Array) -> Any:
        parts = zip(self.layers, self._drives(drive_cotangent), strict=True)
        return tuple(layer.parameter_vjp(part) for layer, part in parts)

    def _drives(self, drive_cotangent: Array) -> list[Array]:
        return columns(drive_cotangent, tuple(layer.drive_size for layer in self.layers))

    @property
    def drive_size(self) -> int:
        return sum(layer.drive_size for layer in self.layers)


@result
class _Spread(LinearSteps):
    """`FunctionSteps` for several vectors side by side: their axis goes to the front, and back behind [*lead].

    Attributes:
        inner: the steps for one vector.
    """

    inner: Any

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def lead(self) -> tuple[int, ...]:
        return self.inner.lead

    @property
    def rows(self) -> tuple[Any, ...]:
        return self.inner.rows

    def at(self, rows: tuple[Any, ...]) -> _Spread:
        return _Spread(self.inner.at(rows))

    def pull(self, cotangent: Array) -> tuple[Array, Array]:
        before = self._each(lambda v: self.inner.pull(v)[0], cotangent)
        return before, cotangent

    def push(self, tangent: Array | None, x_tangent: Array | None = None) -> Array:
        if tangent is None:
            return self._each(lambda u_x: self.inner.push(None, u_x), x_tangent)
        if x_tangent is None:
            return self._each(self.inner.push, tangent)
        both = namespace(tangent).concat([tangent, x_tangent], axis=-1)
        return self._each(lambda u: self.inner.push(u[..., : self.size], u[..., self.size :]), both)

    def shown(self, tangent: Array) -> Array:
        """As of the inner steps."""
        return self._each(self.inner.shown, tangent)

    def _each(self, apply: Any, vectors: Any) -> Array:
        xp = namespace(vectors)
        whole = xp.broadcast_to(vectors, (*self.lead, *vectors.shape[-2:]))
        return xp.moveaxis(jax.vmap(apply)(xp.moveaxis(whole, -2, 0)), 0, -2)

    def spread(self) -> _Spread:
        return self


def _zero_where(flag: Array, x: Array) -> Array:
    xp = namespace(flag, x)
    return xp.where(flag, xp.zeros_like(x), x)


def _whole(lead: tuple[int, ...], rows: Array) -> Array:
    """What came of unit vectors in rows, with all leading axes: maps that are the same at each step have none."""
    return namespace(rows).broadcast_to(rows, (*lead, *rows.shape[-2:]))


def _of_each(apply: Any, vectors: Any, ndim: int) -> Array:
    """`apply` to vectors [*lead, N] of `ndim` axes, or to each of several that more axes in front hold."""
    for _ in range(vectors.ndim - ndim):
        apply = jax.vmap(apply)
    return apply(vectors)


# ------------------------------------------------------------------------------------- of a recorded pass


@overload
def linearise(history: History | StackHistory) -> PassSteps: ...
@overload
def linearise(history: Array) -> LinearSteps: ...
def linearise(history: Any) -> Any:
    """The linear maps of a recorded pass: for each step from the state before to the state after.

    Args:
        history: the recorded pass, in memory, of a cell, of a step function, or of a stack of these, which is one
            system whose joint state is that of all layers; or Jacobians [T, *batch, S, S] of any map in the order
            of time.

    Returns:
        `LinearSteps`: `steps.vjp(v)` takes cotangents [T, *batch, S] one step back, `steps.jvp(u)` tangents one
        step forward, `steps.matrices()` gives the Jacobians; `steps[t]` is one step, `steps[a:b]` a stretch.

    Raises:
        TypeError: this is not a history in memory, or has layers with two directions, without a joint recurrence;
            or Jacobians that are neither float32 nor float64.
        ValueError: Jacobians of another shape.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> steps = lstmx.linearise(lstmx.record(cell, params, numpy.ones((5, 3), "float32")))
        >>> v = numpy.ones(16, "float32")
        >>> for t in reversed(range(5)):
        ...     v, _ = steps[t].vjp(v)
        >>> v.shape, steps.matrices().shape
        ((16,), (5, 16, 16))
    """
    if hasattr(history, "__array_namespace__"):
        jacobian_array(history)
    else:
        require_history(history, joint=True)
    return _linearised(history)


@jit()
def _linearised(history: Any) -> Any:
    return steps_of(history)


def steps_of(history: Any) -> Any:
    """As `linearise`, inside a compiled function and unchecked."""
    if isinstance(history, LinearSteps):
        return history
    if hasattr(history, "__array_namespace__"):
        return MatrixSteps(history)
    if isinstance(history, StackHistory):
        layers = tuple(steps_of(layer) for layer in history.layers)
        return StackSteps(layers, history.masks, tuple(history.parts))
    if isinstance(history, BidirectionalHistory):
        raise TypeError(
            f"{history.cell!r} reads time in both directions and has no joint recurrence; take the history of one "
            'direction, history.parts["forward"]'
        )
    stored = history.kept_rows if history.cell.closed_form else None
    return steps_at(
        history.cell, history.params, history.before, history.inputs, stored, history.states, history.controls
    )


def steps_at(
    cell: Cell,
    params: Any,
    before: Any,
    x: Array,
    stored: Any,
    after: Any,
    controls: Controls | None = None,
    factors: Callable[..., Any] | None = None,
) -> Any:
    """The steps from states before to states after, with any axes in front.

    Args:
        cell: the cell.
        params: its parameters.
        before: the states that the steps start from, [*lead, ...].
        x: inputs, [*lead, D].
        stored: the pre-activations, [*lead, blocks·H]; None of a step function.
        after: the states after.
        controls: of the steps.
        factors: `(cell, params, before, stored, after) -> slopes`, what stands in the place of the derivatives of
            a cell with closed forms; None for these.
    """
    controls = controls or Controls()
    core, kept = cell.core, cell.kept(controls.kept)
    if not core.closed_form:
        inner: Any = FunctionSteps(core, params, before, x, after)  # type: ignore  # a StepFunction
    else:
        new = after if kept is None else core.update(before, stored)
        if factors is None:
            slopes = core.linearise(params, before, stored, new)
        else:
            slopes = factors(core, params, before, stored, new)
        inner = CellSteps(core, params, core.recurrence.transposed(params), slopes, before, x, new)
    if kept is None and controls.hold is None and controls.reset is None:
        return inner
    hold, reset = (None if flag is None else flag[..., None] for flag in controls[:2])
    share = None if kept is None else packed_rates(cell, controls.kept, x)
    drawn = share if controls.kept is not None else None
    return ControlledSteps(inner, hold, reset, drawn, share if drawn is None else None)


def state_size(system: Any) -> int:
    """S of a pass, or of Jacobians [T, *batch, S, S]."""
    return system.shape[-1] if hasattr(system, "__array_namespace__") else system.cell.state_size
