"""`from_step`: a cell made of a function of one step, differentiated by JAX."""

from __future__ import annotations

import functools
import inspect
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lstmx.arrays import Array, dtype_of, has_jax, is_jax, jax, jnp
from lstmx.cells.base import Cell, Layout
from lstmx.checks import LARGEST, positive
from lstmx.draws import Draws

_NO_BLOCKS = Layout((), {}, None, {}, {}, {})


class _Start:
    """The initial state of one sequence as something that can be compared and hashed."""

    def __init__(self, state: Any):
        arrays, self.tree = jax.tree.flatten(state)
        self.arrays = tuple(np.asarray(x) for x in arrays)
        self._key = (self.tree, tuple((x.shape, x.tobytes()) for x in self.arrays))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Start) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class NoParameters(NamedTuple):
    """Shapes of parameters that only their owner knows."""


@dataclass(frozen=True, repr=False)
class StepFunction(Cell[Any, Any]):
    """A cell that is a function of one step; `lstmx.from_step` makes it.

    Attributes:
        function: `(params, state, x) -> state`, or `-> (state, shown)`, of one sequence.
        start: the initial state.
        input_size: number of features D of x_t.
        read: where the output is in the state: a function of the state; None where `columns` say it.
        columns: where the output begins and ends in the joint state; None where `read` says it.
        named_gates: which of the shown arrays lie in [0, 1].
        name: what it is called in messages and figures.
        make: makes parameters of a key; None where `init` is not for it.
    """

    function: Callable[..., Any]
    start: Any
    input_size: int
    read: Callable[[Any], Array] | None
    columns: tuple[int, int] | None
    named_gates: tuple[str, ...]
    name: str
    make: Callable[[Any], Any] | None = None
    hidden_size: int = field(default=0, init=False)

    gate_type: ClassVar[type] = NoParameters

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_size", self.output_size)

    def __repr__(self) -> str:
        return f"{self.name}(input_size={self.input_size}, state_size={self.state_size})"

    @property
    def closed_form(self) -> bool:
        return False

    @property
    def gate_names(self) -> tuple[str, ...]:
        return self.named_gates

    # ------------------------------------------------------------------------------------------- state

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers in each array of the state."""
        return tuple(int(x.size) for x in self.start.arrays)

    @property
    def state_size(self) -> int:
        return sum(self.sizes)

    @property
    def field_sizes(self) -> tuple[int, ...]:
        return self.sizes

    @functools.cached_property
    def output_size(self) -> int:  # type: ignore  # a property of the other cells
        if self.columns is not None:
            return self.columns[1] - self.columns[0]
        state = self.start.tree.unflatten(self.start.arrays)
        shape = jax.eval_shape(self.read, state).shape  # type: ignore  # there is one of the two
        return int(shape[0])

    @property
    def output_at(self) -> slice | None:
        """The columns of the joint state that are the output; None where it is a function of the state."""
        return None if self.columns is None else slice(*self.columns)

    def initial_state(self, params: Any, batch: tuple[int, ...] = ()) -> Any:
        dtype = dtype_of(params)
        arrays = (jnp.asarray(x, dtype=dtype) for x in self.start.arrays)
        return self.start.tree.unflatten([jnp.broadcast_to(x, (*batch, *x.shape)) for x in arrays])

    def restarted(self, params: Any, before: Any, reset: Array) -> Any:
        packed = self.pack(before)
        start = self.pack(self.initial_state(params))
        return self.unpack(jnp.where(reset[..., None], start.astype(packed.dtype), packed))

    def pack(self, state: Any) -> Array:
        arrays = jax.tree.leaves(state)
        flat = (
            x.reshape((*x.shape[: x.ndim - own.ndim], own.size))
            for x, own in zip(arrays, self.start.arrays, strict=True)
        )
        return jnp.concatenate(list(flat), axis=-1)

    def unpack(self, packed: Array) -> Any:
        found, at = [], 0
        for own in self.start.arrays:
            found.append(packed[..., at : at + own.size].reshape((*packed.shape[:-1], *own.shape)))
            at += own.size
        return self.start.tree.unflatten(found)

    def named_fields(self, state: Any) -> dict[str, Array]:
        named = jax.tree_util.tree_flatten_with_path(state)[0]
        found = {jax.tree_util.keystr(path, simple=True, separator="_"): x for path, x in named}
        return {name or "hidden": x for name, x in found.items()}

    def output(self, state: Any) -> Array:
        if self.output_at is not None:
            return self.pack(state)[..., self.output_at]
        lead = jax.tree.leaves(state)[0].ndim - self.start.arrays[0].ndim
        return _batched(self.read, lead, 1)(state)

    # -------------------------------------------------------------------------------------------- step

    def next_state(self, params: Any, before: Any, x: Array) -> Any:
        """The state after [*lead, ...], from the state before and x [*lead, D]."""
        return self._stepped(params, before, x)[0]

    def _stepped(self, params: Any, before: Any, x: Array) -> tuple[Any, dict[str, Array]]:
        one = functools.partial(self._one, params)
        return _batched(one, x.ndim - 1, 2)(before, x)

    def _one(self, params: Any, before: Any, x: Array) -> tuple[Any, dict[str, Array]]:
        """One step of one sequence, checked."""
        try:
            made = self.function(params, before, x)
        except Exception as error:
            given = (f"{word} {_shapes(tree)}" for word, tree in (("params", params), ("state", before), ("x", x)))
            error.add_note(f"in the step of {self.name}, called for one sequence with {'; '.join(given)}")
            raise
        shown: Any = {}
        if (
            isinstance(made, tuple)
            and len(made) == 2
            and isinstance(made[1], dict)
            and jax.tree.structure(made) != self.start.tree
        ):
            made, shown = made
        self._check(made, shown, x.dtype)
        return made, dict(shown)

    def _check(self, made: Any, shown: dict[str, Any], dtype: Any) -> None:
        if jax.tree.structure(made) != self.start.tree:
            raise TypeError(
                f"the step of {self.name} returned a state {jax.tree.structure(made)}; expected "
                f"{self.start.tree}, like the initial state"
            )
        names = self.named_fields(made)
        for (name, x), own in zip(names.items(), self.start.arrays, strict=True):
            if x.shape != own.shape or x.dtype != dtype:
                raise TypeError(
                    f"the step of {self.name} returned {name} as {x.dtype} {tuple(x.shape)}; expected {dtype} "
                    f"{own.shape}, like the initial state and the inputs"
                )
        states = {f"{name}_state" for name in names}
        for name, value in shown.items():
            if not hasattr(value, "shape") or not hasattr(value, "dtype"):
                kind = type(value).__name__
                raise TypeError(f"the step of {self.name} shows {name} as a {kind}; expected an array")
            usable = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
            if not usable or name in states or name in RESERVED:
                raise ValueError(
                    f"the step of {self.name} shows {name!r}; expected a name that a history does not have"
                )
        missing = [name for name in self.gate_names if name not in shown]
        if missing:
            raise ValueError(
                f"gates names {', '.join(missing)}, which the step of {self.name} does not show; it shows "
                f"{', '.join(shown) or 'nothing'}"
            )

    def shown_shapes(self, params: Any) -> dict[str, tuple[int, ...]]:
        """The shape of each array that a step of one sequence shows, of parameters or of their shapes."""
        dtype = dtype_of(params)
        before = self.start.tree.unflatten([jax.ShapeDtypeStruct(x.shape, dtype) for x in self.start.arrays])
        x = jax.ShapeDtypeStruct((self.input_size,), dtype)
        shown = jax.eval_shape(self._one, params, before, x)[1]
        return {name: tuple(value.shape) for name, value in shown.items()}

    def stepper(self, params: Any, hoisted: bool) -> Callable[[Any, Array], tuple[Any, Any]]:
        del hoisted
        return functools.partial(self._stepped, params)

    def drive(self, params: Any, x: Array) -> Array:
        del params
        return x

    def restored(self, params: Any, before: Any, x: Array) -> Any:
        return self._stepped(params, before, x)[1]

    @property
    def reads(self) -> tuple[str, ...]:
        return ("the whole state",)

    def readings(self, before: Any, a: Any) -> Any:
        return namedtuple("Shown", tuple(a))(**a)

    @property
    def preactivation_size(self) -> int:
        return self.state_size

    @property
    def bounded(self) -> bool:
        return False

    # ------------------------------------------------------------------------------------- parameters

    def check_parameters(self, params: Any, name: str) -> None:
        """Raise unless `params` are a tree of arrays of one float dtype, of JAX."""
        arrays = jax.tree.leaves(params)
        if not arrays:
            raise TypeError(
                f"{name} hold no array; expected a tree of arrays, at least one, for the step of {self.name}"
            )
        for x in arrays:
            if not hasattr(x, "__array_namespace__"):
                raise TypeError(
                    f"{name} hold a {type(x).__name__}; expected arrays alone: close over what is none, or take "
                    "it out first, as equinox.partition does"
                )
        dtypes = {x.dtype for x in arrays}
        if len(dtypes) > 1 or not dtypes <= {np.dtype("float32"), np.dtype("float64")}:
            raise TypeError(
                f"{name} hold {', '.join(sorted(map(str, dtypes)))}; expected float32 or float64 throughout"
            )

    def check_state(self, params: Any, value: Any, batch: tuple[int, ...], name: str) -> None:
        """Raise unless `value` is a state like the initial one, with these batch axes."""
        if jax.tree.structure(value) != self.start.tree:
            raise TypeError(
                f"{name} is a tree {jax.tree.structure(value)}; expected {self.start.tree}, like the initial state"
            )
        dtype = dtype_of(params)
        for (path, x), own in zip(self.named_fields(value).items(), self.start.arrays, strict=True):
            if tuple(x.shape) != (*batch, *own.shape):
                raise ValueError(f"{name}.{path} has shape {tuple(x.shape)}; expected {(*batch, *own.shape)}")
            if x.dtype != dtype:
                raise TypeError(f"{name}.{path} is {x.dtype}; the parameters are {dtype}")

    def init(self, key: Any, dtype: Any = "float32", scheme: Any = ()) -> Any:
        if self.make is None:
            raise TypeError(
                f"{self.name} is a step function, whose parameters are your own; pass init= to from_step"
            )
        if scheme not in ((), []) or np.dtype(dtype) != np.dtype("float32"):
            raise ValueError(f"scheme and dtype are not for {self.name}, whose parameters are your own")
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            key = jax.random.key(Draws.seed(key))
        if not isinstance(key, jax.Array):
            raise TypeError(
                f"key is a {type(key).__name__}; {self.name} is a step function, which runs in JAX: expected an "
                "int or a JAX key"
            )
        return self.make(key)

    @property
    def parameter_count(self) -> int:
        made = jax.eval_shape(self.init, jax.random.key(0))
        return sum(int(x.size) for x in jax.tree.leaves(made))

    def fresh(self, draws: Any, dtype: Any, scheme: Any = ()) -> Any:
        if not is_jax(draws.xp):
            raise TypeError(f"{self.name} is a step function, which runs in JAX; key is of NumPy")
        return self.init(draws.part(), dtype, scheme)

    # ------------------------------------------------------------------- what only equations could tell

    @property
    def state_type(self) -> type[Any]:
        raise TypeError(f"{self.name} is a step function; its state is the tree that from_step got")

    @property
    def layout(self) -> Layout:
        return _NO_BLOCKS

    def parameter_shapes(self) -> Any:
        raise TypeError(f"{self.name} is a step function, whose parameters have the shapes of its owner")

    def draw(self, draws: Any, dtype: Any) -> Any:
        return self.fresh(draws, dtype)

    def settle(self, before: Any, gates: Any, a: Array) -> Any:
        raise TypeError(f"{self.name} is a step function, which has no gates to compute a state from")

    def linearise(self, params: Any, before: Any, a: Array, after: Any) -> Any:
        raise TypeError(f"{self.name} is a step function; its linear maps are lstmx.linearise(history)")

    def critical_gain(self, biases: dict[str, float]) -> float:
        raise ValueError(f"{self.name} is a step function, whose critical gain has no closed form")


RESERVED = frozenset(
    [
        "cell",
        "params",
        "initial",
        "inputs",
        "states",
        "stored",
        "controls",
        "hidden_state",
        "outputs",
        "final",
        "before",
        "gates",
        "preactivations",
        "kept_rows",
        "lengths",
        "counts",
        "whole",
        "batch",
        "rows",
        "sequence",
        "pieces",
        "save",
        "summary",
        "stretch",
        "to_numpy",
        "to_xarray",
        "from_xarray",
        "concatenate",
        "log_gate",
        "log_forget",
        "cell_state",
        "log_retention",
        "read_by_gates",
        "where_counted",
        "with_gaps",
    ]
)


def _batched(function: Any, axes: int, arguments: int) -> Any:
    """`function` of one sequence as one of arrays with so many axes in front."""
    for _ in range(axes):
        function = jax.vmap(function, in_axes=(0,) * arguments)
    return function


def from_step(
    step: Callable[..., Any],
    state: Any,
    input_size: int,
    output: Any = None,
    gates: Any = (),
    name: str | None = None,
    *,
    init: Callable[[Any], Any] | None = None,
) -> StepFunction:
    """Make a cell of a function of one step: for `run`, `record` and every analysis that needs no gates.

    It runs in JAX. Derivatives are JAX's, one step at a time; a pass keeps the memory of its states.

    Args:
        step: `step(params, state, x)` of one sequence: the state after, or that and a dict of named arrays to
            show, which become attributes of the history. It is a function of its arguments alone.
        state: the initial state of one sequence: any tree of real arrays, matrices too. Its numbers are taken in
            the dtype of the parameters.
        input_size: number of features D of x_t.
        output: which part of the state is h_t: a key, the name of a field or an index; or a function of the state
            that gives a vector [H]. None for the state itself where it is one array, else for its first one. An
            array that is no vector is read row by row.
        gates: names of shown arrays that lie in [0, 1], of which statistics are taken.
        name: of the cell, in messages and figures; None for the function's.
        init: makes parameters of a JAX key, for `cell.init` and `lstmx.compare`; None for your own. Of an int,
            as in `cell.init(0)`, it gets `jax.random.key(0)`.

    Returns:
        The cell. The joint state is the arrays of `state` flattened and joined in the order that `jax.tree` has.

    Raises:
        ImportError: JAX is not installed.
        TypeError: step, output or init is a function of other arguments, or none; state holds something else than
            real arrays; or gates or name are no names.
        ValueError: input_size is below 1, or output names something that the state does not have.

    Example:
        >>> import lstmx, jax, jax.numpy as jnp
        >>> def step(params, h, x):
        ...     return jnp.tanh(params["W"] @ x + params["U"] @ h)
        >>> cell = lstmx.from_step(step, jnp.zeros(4), input_size=3)
        >>> params = {"W": jnp.ones((4, 3)) / 4, "U": jnp.eye(4) / 2}
        >>> history = lstmx.record(cell, params, jnp.ones((20, 3), params["W"].dtype))
        >>> lstmx.jacobians(history).shape
        (20, 4, 4)
    """
    if not has_jax:
        raise ImportError("from_step differentiates by the package jax, which is not installed: pip install jax")
    _function("step", step, "params, state, x", "state")
    if init is not None:
        _function("init", init, "key", "params")
    positive("input_size", input_size, 1, LARGEST)
    arrays = jax.tree.leaves(state)
    if not arrays:
        raise TypeError("state holds no array; expected a tree of real arrays, such as jax.numpy.zeros(8)")
    for x in arrays:
        if not hasattr(x, "__array_namespace__") or not jnp.issubdtype(x.dtype, jnp.floating):
            kind = getattr(x, "dtype", type(x).__name__)
            raise TypeError(
                f"state holds a {kind}; expected real arrays: keep a complex one as two, a count as floats"
            )
    if not isinstance(gates, (list, tuple)) or not all(isinstance(gate, str) for gate in gates):
        raise TypeError(f"gates is {gates!r}; expected a list of names")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name is {name!r}; expected a string, or None for the name of the function")
    start = _Start(state)
    read, columns = _output(state, start, output)
    called = name or getattr(step, "__name__", type(step).__name__)
    return StepFunction(step, start, int(input_size), read, columns, tuple(gates), called, init)


def _function(name: str, value: Any, arguments: str, result: str) -> None:
    """Raise unless `value` is a function that can be called with so many arguments, as far as it says."""
    expected = f"expected a function ({arguments}) -> {result}"
    if not callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}; {expected}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # as of what is written in C
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        raise TypeError(f"{name} is a function {signature}; {expected}") from error


def _shapes(tree: Any) -> str:
    """Dtype and shape of each array of a tree, by its place there."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return ", ".join(f"{jax.tree_util.keystr(path)} {x.dtype} {tuple(x.shape)}".strip() for path, x in found)


def _output(state: Any, start: _Start, output: Any) -> tuple[Any, tuple[int, int] | None]:
    """How the output is read of the state: a function, or columns of the joint state."""
    sizes = [int(x.size) for x in start.arrays]
    if output is None:
        return None, (0, sizes[0])
    if callable(output):
        _function("output", output, "state", "output")
        shape = jax.eval_shape(output, state)
        if not hasattr(shape, "shape") or len(shape.shape) != 1:
            raise ValueError(f"output gives {shape} of the initial state; expected one vector [H]")
        return output, None
    places = iter(range(len(sizes)))
    numbered = start.tree.unflatten(list(places))
    try:
        part = (
            getattr(numbered, output)
            if isinstance(output, str) and hasattr(numbered, output)
            else numbered[output]
        )
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"output is {output!r}; the state has no such part: {numbered}") from error
    if not isinstance(part, int):
        raise ValueError(
            f"output is {output!r}, which holds several arrays; expected one, or a function of the state"
        )
    return None, (sum(sizes[:part]), sum(sizes[: part + 1]))
