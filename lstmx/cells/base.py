"""What a cell must have, and what follows from it.

A cell is a frozen, hashable dataclass of options. Its one-step map has two halves, written once over the array
namespace, each for one step or for all steps at once (any leading axes):

    a_t = driven(params, s_{t-1}, drive(params, x_t))    pre-activations, by the cell's `recurrence`
    s_t = update(s_{t-1}, a_t)                           the state after: unit by unit, by `gates` and `settle`

`linearise` gives the derivatives of the second half, unit by unit, as named factors; the cell's `layout` says what
each of them leads from and to. From these and the recurrence everything else follows: `CellSteps` in
`lstmx.linear` takes cotangents a step back and tangents a step forward. `linearise` is apart because it does not
depend on a direction: a loop computes it for many steps in one go.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from lstmx.arrays import Array, columns, dtype_of, leaves, map_tree, namespace
from lstmx.cells.activations import bias_of_gate, log_of_gate
from lstmx.cells.recurrence import affine
from lstmx.checks import LARGEST, parameters, positive
from lstmx.draws import Draws, Key, float_dtype

_EQUATIONS = ("drive", "driven", "gates", "joined", "layout", "preactivations", "readings", "recurrence", "settle")
_EQUATIONS += ("step", "stepper", "unfolded", "update")

P = TypeVar("P", covariant=True)  # the parameters of a cell
S = TypeVar("S", covariant=True)  # its state

Change = Callable[[Any, tuple[str, ...]], Any]


def passed_on(path: str) -> Any:
    """A property or method of a class that is the one of a part: `passed_on("cell.state_size")`."""
    return property(operator.attrgetter(path))


class Layout(NamedTuple):
    """Where things are in a cell. Blocks count from 0; fields are those of `state_type`."""

    blocks: tuple[str, ...]
    """What is made of each block of H pre-activations; the name of a gate ends in "_gate"."""
    gates: dict[str, tuple[int, int] | None]
    """Each gate as (block, sign): the cell's `gate_activation` of the block, or with −1 of its negative; None for
    a constant 1. Where the cell's own `gate_logit` says otherwise, the block that its bias is in."""
    retention_gate: str | None
    """The gate that multiplies the old state, whose time scale is the unit's memory; None without one."""
    from_blocks: dict[str, tuple[str, int]]
    """Factors that are ∂(field after)/∂(block): by name, the field and the block."""
    from_before: dict[str, tuple[str, str]]
    """Factors that are ∂(field after)/∂(field before) at fixed pre-activations: by name, the two fields."""
    from_after: dict[str, tuple[str, str]]
    """Factors that are ∂(field after)/∂(other field after), where one is computed from the other: by name, the
    two fields, in the order of a walk back: those that lead from a field stand before those that lead to it.
    Where the recurrence's own `led` says so, a factor is a linear map. A name that is no field of the state is of
    what stands between two fields."""
    shown: tuple[tuple[str, int], ...] = ()
    """Fields, or what stands between two, that are a block of pre-activations themselves: field and block."""


class Cell(ABC, Generic[P, S]):
    """A recurrent cell: options in a frozen dataclass, mathematics in pure functions.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
    """

    input_size: int
    hidden_size: int

    gate_type: ClassVar[type]
    """NamedTuple of what `gates` returns."""
    gate_activation = "sigmoid"
    """What gates are made with; an option of cells that have others."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a cell whose equations are new while its derivatives are those of another one.

        Raises:
            TypeError: it is one.
        """
        super().__init_subclass__(**options)
        changed = [name for name in _EQUATIONS if name in vars(cls)]
        inherited = getattr(cls.linearise, "__isabstractmethod__", False)
        if changed and "linearise" not in vars(cls) and not inherited:
            other = next(kind for kind in cls.__mro__[1:] if "linearise" in vars(kind))
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(changed)} of {other.__name__}, whose linearise has the "
                f"derivatives of the equations that {other.__name__} has: write linearise, too, and let "
                "lstmx.check_cell(cell) compare it with autodiff; or write the step as a function for "
                "lstmx.from_step"
            )

    def __new__(cls, *sizes: Any, **options: Any) -> Any:
        """Refuse the activation of gates where it is no option, by the names of the cells that have it.

        Raises:
            TypeError: it is given to another cell.
        """
        if "gate_activation" in options and "gate_activation" not in getattr(cls, "__dataclass_fields__", ()):
            raise TypeError(
                f"gate_activation is {options['gate_activation']!r}; LSTM and GRU have this option, and a "
                f"{cls.__name__} has not"
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        positive("input_size", self.input_size, 1, LARGEST)
        positive("hidden_size", self.hidden_size, 1, LARGEST)

    def __repr__(self) -> str:
        """The sizes, and the options that are not the class's own."""
        known = dataclasses.fields(self)  # type: ignore  # every cell is a dataclass
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in known if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(shown)})"

    # ------------------------------------------------------------------------------- what a cell must have

    @property
    @abstractmethod
    def state_type(self) -> type[Any]:
        """NamedTuple of the state, `hidden` first; each field is [*batch, H], or as `field_sizes` says."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Where gates, pre-activations and the factors of the Jacobian are."""

    @abstractmethod
    def parameter_shapes(self) -> Any:
        """The parameters' NamedTuple, holding shapes; None for an array that the cell's options leave out."""

    @abstractmethod
    def settle(self, before: Any, gates: Any, a: Array) -> S:
        """The state after, from the state before, the gates and what of the pre-activations is in no gate."""

    @abstractmethod
    def linearise(self, params: Any, before: Any, a: Array, after: Any) -> Any:
        """The direction-free factors of the one-step Jacobian, a NamedTuple of [*batch, H] or None."""

    def gates(self, a: Array) -> Any:
        """Gate activations from pre-activations alone, as `gate_type`, each [*batch, H]; see `readings`."""
        raise TypeError(f"gates of a {type(self).__name__} read the state before: cell.readings(before, a)")

    # ----------------------------------------------------------------- what it may have in closed form, too

    def log_determinant(self, params: Any, slopes: Any) -> Array | None:
        """Ln |det J_t| [*batch] in closed form; None where there is none."""
        del params, slopes
        return None

    def newton_step(self, params: Any, slopes: Any, residual: Any) -> Any:
        """Newton's step to a fixed point, (I − J)⁻¹ times the residual F(s) − s, without a matrix of S rows.

        Fields of the residual and of the step are [*batch, H]; None where there is no shorter way.
        """
        del params, slopes, residual

    def critical_gain(self, biases: dict[str, float]) -> float:
        """Gain at which the zero state loses its stability, from each gate's bias; see `lstmx.critical_gain`.

        Raises:
            ValueError: it is not known in closed form.
        """
        del biases
        raise ValueError(f"the critical gain of a {type(self).__name__} is not known in closed form")

    def logarithms(self, a: Array) -> tuple[Array, Array]:
        """Ln of what multiplies the old state, and of what is added to it, each [*batch, H].

        Raises:
            ValueError: the cell's pass is no linear recurrence of positive numbers.
        """
        raise ValueError(
            f"parallel=True takes gates that read the input alone; those of {self} read the state too"
        )

    # ------------------------------------------------------------------------------------ what follows

    @property
    def recurrence(self) -> Any:
        """How pre-activations read the state before and the input."""
        return affine(self.hidden_size)

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of the state before that pre-activations depend on."""
        return self.recurrence.reads

    @property
    def preactivation_blocks(self) -> int:
        """Blocks of H columns in the pre-activations a_t."""
        return len(self.layout.blocks)

    @property
    def gate_blocks(self) -> dict[str, int]:
        """The gates that have a block of pre-activations of their own, and so a bias; and which."""
        return {name: place[0] for name, place in self.layout.gates.items() if place and place[1] > 0}

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The gates: what lies in [0, 1] and scales something else."""
        return tuple(self.layout.gates)

    @property
    def retention_gate(self) -> str | None:
        """The gate that multiplies the old state; None without one."""
        return self.layout.retention_gate

    @property
    def way_names(self) -> tuple[str, ...]:
        """The blocks that lead back to the state before, in the order of the recurrence's `ways`."""
        return tuple(name for name in self.layout.blocks if name in self.gate_type._fields and self.reads)

    @property
    def preactivation_size(self) -> int:
        """Numbers in the pre-activations of one step of one sequence."""
        return self.preactivation_blocks * self.hidden_size

    @property
    def bounded(self) -> bool:
        """Whether the state stays in a box under a constant input, whatever the parameters."""
        return True

    @property
    def gates_read_state(self) -> bool:
        """Whether gate activations depend on the state before in another way than by pre-activations."""
        return False

    @property
    def core(self) -> Cell[P, S]:
        """The cell whose equations a step follows before anything of the old state is kept: this one."""
        return self

    def kept(self, drawn: Any) -> Any:
        """The share of the old state that each field keeps beside the equations, as a state; None for nothing."""
        del drawn
        return None

    def mixed(self, before: Any, after: Any, drawn: Any = None) -> Any:
        """The state after a step, of which a part may be kept from before: from both, and what was drawn."""
        del before, drawn
        return after

    @property
    def closed_form(self) -> bool:
        """Whether the cell has pre-activations, gates and derivatives in closed form; a step function has not."""
        return True

    @property
    def parameter_count(self) -> int:
        """Numbers in the parameters."""
        return sum(math.prod(shape) for shape in self.parameter_shapes() if shape is not None)

    @property
    def state_size(self) -> int:
        """S, the numbers in the joint state of one sequence."""
        return sum(self.field_sizes)

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """Columns of each field of the state."""
        return (self.hidden_size,) * len(self.state_type._fields)

    @property
    def output_size(self) -> int:
        """Columns of the outputs h_t."""
        return self.field_sizes[0]

    def init(self, key: Key, dtype: Any = "float32", scheme: Any = ()) -> P:
        """Fresh parameters: Glorot-uniform input kernel per gate, orthogonal recurrent kernel per gate.

        Biases are zero, save what an option of the cell or a scheme sets.

        Args:
            key: an int (JAX where it is installed, else NumPy), a `numpy.random.Generator` (NumPy) or a JAX
                key (JAX). The library of the parameters is the library that everything computed from them
                runs in.
            dtype: "float32" or "float64".
            scheme: how to change them: a scheme of `lstmx.schemes`, such as `lstmx.schemes.chrono(1000)`, or
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
        draws = Draws(key)
        return self.fresh(draws, float_dtype(draws.xp, dtype), scheme)

    def fresh(self, draws: Draws, dtype: Any, scheme: Any = ()) -> P:
        """Fresh parameters from a source of draws; see `init`."""
        schemes = scheme if isinstance(scheme, (tuple, list)) else (scheme,)
        for one in schemes:
            if not callable(one):
                raise TypeError(f"scheme holds {one!r}; expected schemes such as lstmx.schemes.chrono(1000)")
        params = self.draw(draws, dtype)
        for one in schemes:
            params = one(self, params, draws)
            parameters(self, params)
        return params

    def draw(self, draws: Draws, dtype: Any) -> P:
        """Fresh parameters: kernels of blocks [D, H] Glorot-uniform and [H, H] orthogonal, all else zero."""
        shapes: Any = self.parameter_shapes()
        h, xp = self.hidden_size, draws.xp
        kernel = draws.glorot_uniform(self.input_size, h, shapes.input_kernel[1] // h, dtype)
        made: dict[str, Any] = {"input_kernel": kernel}
        for name, shape in shapes._asdict().items():
            if name == "recurrent_kernel":
                made[name] = draws.orthogonal(h, shape[1] // h, dtype)
            elif name != "input_kernel" and shape is not None:
                made[name] = xp.zeros(shape, dtype=dtype)
        return shapes._replace(**made)

    def initial_state(self, params: Any, batch: tuple[int, ...] = ()) -> S:
        """The zero state with the given batch axes, in the parameters' library and dtype."""
        xp, dtype = namespace(*leaves(params)), dtype_of(params)
        return self.state_type(*(xp.zeros((*batch, size), dtype=dtype) for size in self.field_sizes))

    def restarted(self, params: Any, before: Any, reset: Array) -> S:
        """The state before a step [*lead], or where `reset` [*lead] is true the one that sequences start from."""
        del params
        xp = namespace(reset)
        return map_tree(lambda x: xp.where(reset[..., None], xp.zeros_like(x), x), before)

    def output(self, state: Any) -> Array:
        """The output h_t [*lead, H] of a state after a step."""
        return state.hidden

    def named_fields(self, state: Any) -> dict[str, Array]:
        """The arrays of a state by name."""
        return state._asdict()

    def pack(self, state: Any) -> Array:
        """A state, or what is shaped like one, as one array [*lead, S]: its fields side by side."""
        return namespace(*state).concat(list(state), axis=-1)

    def unpack(self, packed: Array) -> S:
        """What `pack` packed."""
        return self.state_type(*columns(packed, self.field_sizes))

    def readings(self, before: Any, a: Array) -> Any:
        """Gate activations as `gate_type`, each [*batch, H].

        Args:
            before: the state before; None where not `gates_read_state`.
            a: pre-activations.
        """
        del before
        return self.gates(a)

    def gate_logit(self, name: str, before: Any, a: Array) -> Array:
        """The number [*batch, H] of which a gate is the σ, or other `gate_activation`; infinite for one left out.

        Arguments are those of `readings`.
        """
        del before
        place = self.layout.gates[name]
        if place is None:
            first = a[..., : self.hidden_size]
            return namespace(a).full_like(first, float("inf"))
        block, sign = place
        logit = a[..., block * self.hidden_size : (block + 1) * self.hidden_size]
        return logit if sign > 0 else -logit

    def log_retention(self, before: Any, a: Array) -> Array:
        """Ln of the retention gate, [*batch, H], exact where the gate rounds to 0 or to 1; see `readings`."""
        return self.log_gate(self.layout.retention_gate or "", before, a)

    def log_gate(self, name: str, before: Any, a: Array) -> Array:
        """Ln of a gate, [*batch, H], exact where it rounds to 0 or 1, −inf where a hard gate is 0."""
        return log_of_gate(self.gate_activation, self.gate_logit(name, before, a))

    def retention_biases(self, values: Array) -> dict[str, Array]:
        """Biases [H] by gate with which the retention gate is σ(values) where all else is zero."""
        return {self.layout.retention_gate or "": bias_of_gate(self.gate_activation, values)}

    def drive(self, params: Any, x: Array) -> Array:
        """What of the pre-activations depends on the input x [*batch, D] alone, [*batch, blocks·H]."""
        return self.recurrence.drive(params, x)

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        """Pre-activations a_t [*batch, blocks·H] from the state before and the input's `drive`."""
        return self.recurrence.driven(params, before, drive)

    def preactivations(self, params: Any, before: Any, x: Array) -> Array:
        """Pre-activations a_t [*batch, blocks·H] from the state before and the input x [*batch, D]."""
        return self.driven(params, before, self.drive(params, x))

    def joined(self, params: Any) -> Callable[[Any, Array], Array]:
        """`preactivations` as a function of the state before and x, for a loop on a processor with few cores.

        What does not change from step to step is made here, once. A cell whose input and hidden state meet in a
        sum takes one product of both with one kernel.
        """
        return self.recurrence.joined(params)

    def update(self, before: Any, a: Array) -> S:
        """The state after, from the state before and the pre-activations."""
        return self.settle(before, self.gates(a), a)

    def unfolded(self, params: Any) -> Callable[[Any, Array, Change], tuple[Any, Any, Array]]:
        """One step whose values are changed on the way, for a loop: a function of the state before, x, `change`.

        `change(values, names)` returns `values`, gates or a state, with the fields `names` changed. Each field
        goes through it once, in the order of the equations: what a step computes from it later sees the change,
        and so do all steps after. Two gates of one block of pre-activations, such as f = 1 − i, are both computed
        from the block: neither follows a change of the other.

        Returns of that function: the state after and the gates, both as changed, and the pre-activations.
        """
        preactivations = self.joined(params)

        def step(before: Any, x: Array, change: Change) -> tuple[Any, Any, Array]:
            a = preactivations(before, x)
            gates = change(self.readings(before, a), self.gate_type._fields)
            return change(self.settle(before, gates, a), self.state_type._fields), gates, a

        return step

    def stepper(self, params: Any, hoisted: bool) -> Callable[[Any, Array], tuple[Any, Any]]:
        """One step for a loop: from the state before and x to the state after and what of the step is stored.

        Args:
            params: the cell's parameters.
            hoisted: the loop hands over `drive(params, x)` instead of x.
        """
        preactivations = functools.partial(self.driven, params) if hoisted else self.joined(params)

        def step(before: Any, x: Array) -> tuple[Any, Array]:
            a = preactivations(before, x)
            return self.update(before, a), a

        return step

    def restored(self, params: Any, before: Any, x: Array) -> Any:
        """What of a step is stored, computed anew: the pre-activations."""
        return self.preactivations(params, before, x)

    def step(self, params: Any, state: Any, x: Array) -> tuple[S, Array]:
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
