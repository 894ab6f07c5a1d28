"""What a cell must have, and what follows from it.

A cell is a frozen, hashable dataclass of options. Its mathematics are five pure functions, written once
over the array namespace, each on one step or on all steps at once (any leading axes):

    drive(params, x), driven(params, before, drive)    a_t from x_t and s_{t-1}
    update(before, a)                                  s_t from s_{t-1} and a_t
    linearise(before, a, after)                        the factors of the one-step Jacobian
    pull(Uᵀ, slopes, cotangent)                        Jᵀ v and the cotangent of a_t
    spread(slopes, u, u_h U, u_x W)                    J u

The three faces `step`, `pullback` and `pushforward` are made of these. `linearise` is apart from `pull` and
`spread` because it does not depend on the direction: a loop computes it for many steps in one go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from lstmx.arrays import Array, map_tree, materialised, namespace, solve
from lstmx.checks import parameters, positive
from lstmx.draws import Draws, float_dtype


class Cell(ABC):
    """A recurrent cell: options in a frozen dataclass, mathematics in pure functions.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
    """

    input_size: int
    hidden_size: int

    state_type: ClassVar[type]
    """NamedTuple of the state, `hidden` first; each field is [*batch, H]."""
    gate_type: ClassVar[type]
    """NamedTuple of what `gates` returns."""
    gate_blocks: ClassVar[dict[str, int]]
    """The sigmoid gates and the block of H pre-activations that each is computed from."""
    preactivation_blocks: ClassVar[int]
    """Blocks of H columns in the pre-activations a_t."""
    retention_gate: ClassVar[str | None]
    """The gate that multiplies the old state, whose time scale is the unit's memory; None without one."""

    def __post_init__(self) -> None:
        positive("input_size", self.input_size)
        positive("hidden_size", self.hidden_size)

    # ------------------------------------------------------------------------------- what a cell must have

    @abstractmethod
    def parameter_shapes(self) -> Any:
        """The parameters' NamedTuple, holding shapes."""

    @abstractmethod
    def draw(self, draws: Draws, dtype: Any) -> Any:
        """Fresh parameters."""

    @abstractmethod
    def drive(self, params: Any, x: Array) -> Array:
        """What of the pre-activations depends on the input x [*batch, D] alone, [*batch, blocks·H]."""

    @abstractmethod
    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        """Pre-activations a_t [*batch, blocks·H] from the state before and the input's `drive`."""

    @abstractmethod
    def update(self, before: Any, a: Array) -> Any:
        """The state after, from the state before and the pre-activations."""

    @abstractmethod
    def gates(self, a: Array) -> Any:
        """Gate activations from pre-activations, as `gate_type`, each [*batch, H]."""

    @abstractmethod
    def linearise(self, before: Any, a: Array, after: Any) -> Any:
        """The direction-free factors of the one-step Jacobian, a NamedTuple of [*batch, H]."""

    @abstractmethod
    def total_cotangent(self, slopes: Any, cotangent: Any) -> Any:
        """∂L/∂(each state field), its ways through the other fields of the same step included.

        The cotangent of the joint state takes its fields as independent coordinates; this one does not.
        """

    @abstractmethod
    def straight(self, slopes: Any, cotangent: Any) -> Any:
        """The part of `pull` that passes no pre-activation: what the old state gets directly."""

    @abstractmethod
    def preactivation_cotangent(self, slopes: Any, cotangent: Any) -> Array:
        """The cotangent of the pre-activations a_t, [*batch, blocks·H]: the part of `pull` without a product."""

    @abstractmethod
    def pull(self, transposed: Array, slopes: Any, cotangent: Any) -> tuple[Any, Array]:
        """A cotangent of the state after, pulled back to the state before; and the one of a_t.

        `transposed` is the recurrent kernel's transpose, which a loop prepares once.
        """

    @abstractmethod
    def spread(self, slopes: Any, tangent: Any, from_h: Array, from_x: Array | None) -> Any:
        """`push` with its products given: `from_h` is the tangent of h times U, `from_x` that of x times W."""

    def log_determinant(self, params: Any, slopes: Any) -> Array | None:
        """Ln |det J_t| [*batch] in closed form; None where there is none."""
        del params, slopes
        return None

    @abstractmethod
    def critical_gain(self, biases: dict[str, float]) -> float:
        """Gain at which the zero state loses its stability, from each gate's bias; see `lstmx.critical_gain`."""

    @abstractmethod
    def sides(self, a_cotangent: Array) -> tuple[Array, Array]:
        """The cotangents of x W and of h U, from the one of the pre-activations."""

    @abstractmethod
    def parameter_cotangent(self, hidden_before: Array, x: Array, a_cotangent: Array) -> Any:
        """The parameters' cotangent, summed over all leading axes of the arguments."""

    # ------------------------------------------------------------------------------------ what follows

    @property
    def preactivation_size(self) -> int:
        """Numbers in the pre-activations of one step of one sequence."""
        return self.preactivation_blocks * self.hidden_size

    @property
    def bounded(self) -> bool:
        """Whether the state stays in a box under a constant input, whatever the parameters."""
        return True

    @property
    def state_size(self) -> int:
        """S, the numbers in the joint state of one sequence."""
        return len(self.state_type._fields) * self.hidden_size

    def init(self, key: Any, dtype: Any = "float32", scheme: Any = ()) -> Any:
        """Fresh parameters: Glorot-uniform input kernel per gate, orthogonal recurrent kernel per gate.

        Biases are zero, save what an option of the cell or a scheme sets.

        Args:
            key: an int (JAX where it is installed, else NumPy), a `numpy.random.Generator` (NumPy) or a JAX
                key (JAX). The library of the parameters is the library that everything computed from them
                runs in.
            dtype: "float32" or "float64".
            scheme: how to change them: a scheme such as `lstmx.chrono(1000)` or `lstmx.defaults_of("pytorch")`, or
                several in a list, applied in order.

        Returns:
            The cell's parameter NamedTuple.

        Raises:
            TypeError: key is none of the three, or a scheme is no function.
            ValueError: another dtype, float64 under JAX without x64 enabled, or a scheme that does not fit the
                cell.

        References:
            Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks",
            AISTATS 2010.
        """
        schemes = scheme if isinstance(scheme, (tuple, list)) else (scheme,)
        for one in schemes:
            if not callable(one):
                raise TypeError(f"scheme holds {one!r}; expected schemes such as lstmx.chrono(1000)")
        draws = Draws(key)
        params = self.draw(draws, float_dtype(draws.xp, dtype))
        for one in schemes:
            params = one(self, params, draws)
            parameters(self, params)
        return params

    def initial_state(self, params: Any, batch: tuple[int, ...] = ()) -> Any:
        """The zero state with the given batch axes, in the parameters' library and dtype."""
        xp = namespace(*params)
        shape = (*batch, self.hidden_size)
        return self.state_type(*(xp.zeros(shape, dtype=params[0].dtype) for _ in self.state_type._fields))

    def preactivations(self, params: Any, before: Any, x: Array) -> Array:
        """Pre-activations a_t [*batch, blocks·H] from the state before and the input x [*batch, D]."""
        return self.driven(params, before, self.drive(params, x))

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        """`preactivations` as a function of the state before and x, for a loop on a processor with few cores.

        What does not change from step to step is made here, once. A cell whose input and hidden state meet in a
        sum takes one product of both with one kernel.
        """
        return lambda before, x: self.preactivations(params, before, x)

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Array]:
        """One step forward.

        Args:
            params: the cell's parameters.
            state: the state before, fields [*batch, H].
            x: the input, [*batch, D].

        Returns:
            The state after, and the pre-activations [*batch, blocks·H].
        """
        a = self.preactivations(params, state, x)
        return self.update(state, a), a

    def pullback(
        self, params: Any, before: Any, preactivations: Array, after: Any, cotangent: Any
    ) -> tuple[Any, Array]:
        """A cotangent one step back: Jᵀ v with J = ∂(state after)/∂(state before).

        Args:
            params: the cell's parameters.
            before: the state before the step, fields [*batch, H].
            preactivations: what the step computed, [*batch, blocks·H].
            after: the state after the step.
            cotangent: v, shaped like the state, its fields taken as independent coordinates.

        Returns:
            The cotangent of the state before, and the one of the pre-activations, from which
            `parameter_cotangent` and `input_cotangent` make those of the parameters and of x.
        """
        return self.pull(params.recurrent_kernel.T, self.linearise(before, preactivations, after), cotangent)

    def pushforward(
        self,
        params: Any,
        before: Any,
        preactivations: Array,
        after: Any,
        tangent: Any,
        x_tangent: Array | None = None,
    ) -> Any:
        """A tangent one step forward: J u, plus ∂(state after)/∂x times `x_tangent` where it is given.

        Args:
            params: the cell's parameters.
            before: the state before the step, fields [*batch, H].
            preactivations: what the step computed, [*batch, blocks·H].
            after: the state after the step.
            tangent: u, shaped like the state.
            x_tangent: a tangent of the input, [*batch, D]; None for zero.

        Returns:
            The tangent of the state after.
        """
        return self.push(params, self.linearise(before, preactivations, after), tangent, x_tangent)

    def push(self, params: Any, slopes: Any, tangent: Any, x_tangent: Array | None) -> Any:
        """A tangent of the state before (and of x), pushed forward to the state after."""
        from_x = None if x_tangent is None else x_tangent @ params.input_kernel
        return self.spread(slopes, tangent, tangent.hidden @ params.recurrent_kernel, from_x)

    def jacobian(self, params: Any, slopes: Any) -> Array:
        """∂s_t/∂s_{t-1}, [*batch, S, S], of the joint state (fields of `state_type` in their order)."""
        h, kind = self.hidden_size, self.state_type
        kernel = params.recurrent_kernel
        xp = namespace(kernel, *slopes)
        unit = xp.eye(self.state_size, dtype=kernel.dtype)
        from_h = xp.concat([kernel, xp.zeros((self.state_size - h, kernel.shape[1]), dtype=kernel.dtype)])
        columns = self.spread(_for_rows(slopes), kind(*blocks(unit, h)), from_h, None)
        return xp.swapaxes(xp.concat(columns, axis=-1), -1, -2)

    def newton_step(self, params: Any, slopes: Any, residual: Any) -> Any:
        """Newton's step to a fixed point: (I − J)⁻¹ times the residual F(s) − s, fields [*batch, H]."""
        jacobian = self.jacobian(params, slopes)
        xp = namespace(jacobian)
        matrix = xp.eye(self.state_size, dtype=jacobian.dtype) - jacobian
        return self.state_type(*blocks(solve(matrix, xp.concat(residual, axis=-1)), self.hidden_size))

    def input_jacobian(self, params: Any, slopes: Any) -> Array:
        """∂s_t/∂x_t, [*batch, S, D], of the joint state."""
        kernel = params.input_kernel
        xp = namespace(kernel, *slopes)
        zero = xp.zeros((self.input_size, self.hidden_size), dtype=kernel.dtype)
        from_h = xp.zeros((self.input_size, params.recurrent_kernel.shape[1]), dtype=kernel.dtype)
        tangent = self.state_type(*(zero for _ in self.state_type._fields))
        columns = self.spread(_for_rows(slopes), tangent, from_h, kernel)
        return xp.swapaxes(xp.concat(columns, axis=-1), -1, -2)

    def input_cotangent(self, params: Any, a_cotangent: Array) -> Array:
        """The cotangent of x [*batch, D], from the one of the pre-activations."""
        return self.sides(a_cotangent)[0] @ params.input_kernel.T


def blocks(packed: Array, size: int) -> tuple[Array, ...]:
    """The blocks of `size` columns that a packed last axis holds."""
    return tuple(packed[..., k : k + size] for k in range(0, packed.shape[-1], size))


def _for_rows(slopes: Any) -> Any:
    """Slopes [*batch, H] as [*batch, 1, H], for tangents [rows, H] or [*batch, rows, H]."""
    return map_tree(lambda x: x[..., None, :], slopes)


def one_product(params: Any) -> Callable[[Any, Array], Array]:
    """`joined` for a = x W + h U + b: [x, h] times [[W], [U]]."""
    xp = namespace(*params)
    kernel = materialised(xp.concat([params.input_kernel, params.recurrent_kernel]))
    return lambda before, x: xp.concat([x, before.hidden], axis=-1) @ kernel + params.bias


def outer(left: Array, right: Array) -> Array:
    """Σ over all leading axes of leftᵀ right: [*n, p], [*n, q] -> [p, q], one matrix product.

    The leading axes are not flattened: one that is split over devices stays split, and each sums its own part.
    """
    axes = tuple(range(left.ndim - 1))
    with np.errstate(invalid="ignore"):  # what left the float range is infinite here, without a warning
        return namespace(left, right).tensordot(left, right, axes=(axes, axes))


def affine_cotangent(x: Array, hidden: Array, a_cotangent: Array) -> tuple[Array, Array, Array]:
    """The cotangents of W, U and b in a = x W + h U + b; of W and U by one product of [x, h]."""
    xp = namespace(x, hidden, a_cotangent)
    joined = outer(xp.concat([x, hidden], axis=-1), a_cotangent)
    return joined[: x.shape[-1], :], joined[x.shape[-1] :, :], total(a_cotangent)


def total(x: Array) -> Array:
    """Sum over all leading axes: [*n, p] -> [p]."""
    return namespace(x).sum(x, axis=tuple(range(x.ndim - 1)))
