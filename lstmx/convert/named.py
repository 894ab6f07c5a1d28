"""Arrays by name: checked against what a framework's layer has, and cut into blocks that change places."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_jax, jnp, leaves, map_tree, namespace
from lstmx.cells import GRU, LSTM, Cell, GRUParams, LSTMParams, ResetBeforeParams, SimpleRNN, SimpleRNNParams
from lstmx.checks import one_of, parameters
from lstmx.draws import in_library
from lstmx.layers import Bidirectional, Directions, Layers, Stack
from lstmx.passes.run import record

_FLOATS = ("float32", "float64")
_STEP = 10**6  # products in the time of which NumPy calls what a step consists of, about 30 µs
_SHORT = 2 * 10**9  # products that NumPy takes in a tenth of a second, and so in less than a compilation


class Named:
    """The arrays of one layer by name, taken one after another.

    Args:
        what: what they are of, for errors.
        arrays: name to array; those that are neither NumPy's nor JAX's are copied to NumPy.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.

    Raises:
        TypeError: an array of another dtype than float32 or float64, and no `dtype` to cast it to; one of complex
            numbers, or of a dtype that quantisation stores; a sparse one, or one without numbers.
        ValueError: `dtype` is another word.
    """

    def __init__(self, what: str, arrays: dict[str, Any], dtype: str | None = None):
        self.what = what
        self.arrays = {name: as_floats(f"{what}: {name}", value, dtype) for name, value in arrays.items()}
        self.left = set(self.arrays)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def take(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """The array of this name, whose shape has to be the one given; None stands for any number.

        Raises:
            ValueError: it is missing, or of another shape.
        """
        if name not in self.arrays:
            raise ValueError(f"{self.what} lacks {name}; it has {', '.join(self.arrays) or 'no arrays'}")
        found = tuple(self.arrays[name].shape)
        if len(found) != len(shape) or any(b not in (None, a) for a, b in zip(found, shape, strict=True)):
            expected = str(shape).replace("None", "any")
            raise ValueError(f"{self.what}: {name} has shape {found}; expected {expected}")
        self.left.discard(name)
        return self.arrays[name]

    def take_or_zeros(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        """As `take`; zeros where there is no such array, as of a layer without biases."""
        if name in self:
            return self.take(name, shape)
        return namespace(like).zeros(shape, dtype=like.dtype)

    def nothing_left(self) -> None:
        """Raise unless every array was taken.

        Raises:
            ValueError: one was not.
        """
        if self.left:
            raise ValueError(f"{self.what} has surplus {', '.join(sorted(self.left))}")


def as_floats(what: str, value: Any, dtype: str | None) -> Array:
    """An array of NumPy or JAX, float32 or float64: cast to `dtype` if one is named; raises as `Named`."""
    if dtype is not None:
        one_of("dtype", dtype, _FLOATS)
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
    kind = str(value.dtype).removeprefix("torch.")
    if re.match(r"q|u?int|bool|float[48]", kind):
        raise TypeError(
            f"{what} is {kind}, as quantisation stores weights, whose scales are elsewhere; expected float32 or "
            "float64: take the model before it was quantised"
        )
    if kind not in _FLOATS and (dtype is None or not kind.startswith(("float", "bfloat"))):
        raise TypeError(
            f"{what} is {kind}; expected float32 or float64: cast the model first, as by module.float(), or "
            'convert its weights with dtype="float32" (on the command line --dtype float32)'
        )
    if getattr(value, "is_meta", False) or "sparse" in str(getattr(value, "layout", "")):
        raise TypeError(f"{what} {'holds no numbers (device meta)' if value.is_meta else 'is sparse'}")
    if hasattr(value, "detach"):  # PyTorch's
        value = value.detach().cpu()
        value = (value if kind in _FLOATS else value.float()).numpy()  # NumPy has no bfloat16
    if not hasattr(value, "__array_namespace__"):
        value = np.asarray(value)
    if dtype is None or kind == dtype:
        return value
    if dtype == "float64" and namespace(value).zeros((), dtype=float).dtype != dtype:
        raise TypeError(f"{what} is JAX's, whose float64 is not enabled: set jax_enable_x64, or give NumPy arrays")
    return value.astype(dtype)


def reordered(packed: Array, order: Iterable[int], count: int, negative: tuple[int, ...] = ()) -> Array:
    """Blocks of columns in another order: the k-th is block `order[k]` of `count`, negated where k is listed."""
    xp, size = namespace(packed), packed.shape[-1] // count
    found = [packed[..., k * size : (k + 1) * size] for k in order]
    return xp.concat([-block if k in negative else block for k, block in enumerate(found)], axis=-1)


# --------------------------------------------------------------------------------------------- cells of parts


def lstm(kernel: Array, recurrent: Array, bias: Array) -> tuple[Cell, Any]:
    """An LSTM of kernels [D, 4H], [H, 4H] and bias [4H], in blocks i, f, g, o."""
    return checked(LSTM(kernel.shape[0], recurrent.shape[0]), LSTMParams(kernel, recurrent, bias))


def gru(kernel: Array, recurrent: Array, bias: Array, candidate_bias: Array) -> tuple[Cell, Any]:
    """A GRU with reset after the product, in blocks r, z, n."""
    cell = GRU(kernel.shape[0], recurrent.shape[0])
    return checked(cell, GRUParams(kernel, recurrent, bias, candidate_bias))


def gru_of_two_biases(kernel: Array, recurrent: Array, first: Array, second: Array) -> tuple[Cell, Any]:
    """A GRU with reset after the product, from the bias beside x W and the one beside h U, each [3H]."""
    xp, split = namespace(first, second), 2 * recurrent.shape[0]
    return gru(kernel, recurrent, xp.concat([(first + second)[:split], first[split:]]), second[split:])


def second_bias(params: Any) -> np.ndarray:
    """The bias beside h U where there is one beside x W, too: a GRU's, of its candidate; zeros elsewhere."""
    second = np.zeros_like(params.bias)
    if isinstance(params, GRUParams):
        second[-len(params.candidate_bias) :] = params.candidate_bias
    return second


def gru_reset_before(kernel: Array, recurrent: Array, bias: Array) -> tuple[Cell, Any]:
    """A GRU with reset before the product, in blocks r, z, n."""
    cell = GRU(kernel.shape[0], recurrent.shape[0], reset="before")
    return checked(cell, ResetBeforeParams(kernel, recurrent, bias))


def simple(kernel: Array, recurrent: Array, bias: Array, activation: str = "tanh") -> tuple[Cell, Any]:
    """A SimpleRNN."""
    cell = SimpleRNN(kernel.shape[0], recurrent.shape[0], activation=activation)
    return checked(cell, SimpleRNNParams(kernel, recurrent, bias))


def with_activations(
    made: tuple[Any, Any], activation: str, gates: str = "sigmoid", output: str | None = None
) -> tuple[Any, Any]:
    """A cell with other activations, and its parameters.

    Args:
        made: the cell and its parameters.
        activation: of the candidate.
        gates: of the gates.
        output: of an LSTM's cell state in its output; None for that of the candidate.

    Raises:
        ValueError: the cell does not have these.
    """
    cell, params = made
    if activation == "tanh" and gates == "sigmoid" and output in (None, "tanh"):
        return made
    if isinstance(cell, SimpleRNN) and gates == "sigmoid":
        own = {"activation": activation}
    elif isinstance(cell, (LSTM, GRU)):
        own = {"candidate_activation": activation, "gate_activation": gates}
        own |= {"output_activation": output or activation} if isinstance(cell, LSTM) else {}
    else:
        raise ValueError(f"{cell!r} has no activation {activation!r} with gates of {gates!r}")
    return dataclasses.replace(cell, **own), params


CANDIDATES = {"LSTM": ("tanh", "relu", "identity"), "GRU": ("tanh", "relu"), "SimpleRNN": ("tanh", "relu")}
"""What the candidate of a cell may be activated by; a gate by what `GATE_ACTIVATIONS` of the cells has."""

_SIZES = np.concatenate([np.linspace(0.1, 12, 60), np.geomspace(12, 1e4, 12)])
_POINTS = np.concatenate([-_SIZES, [0], _SIZES]).astype("float32")
_FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-np.clip(x, -80, 80))),
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_0.2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}


def function_of(function: Any, apply: Callable[[np.ndarray], Any]) -> str:
    """What a function of a model is by its values; else its own name, marked where that name is another's.

    Args:
        function: the function.
        apply: calls it on the framework's own array of numbers [N], and gives NumPy's.
    """
    values = np.asarray(apply(_POINTS))
    for known, expected in _FUNCTIONS.items():
        if values.shape == _POINTS.shape and np.allclose(values, expected(_POINTS), rtol=1e-5, atol=1e-6):
            return known
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name} (by its values another function)" if name in _FUNCTIONS else name


def checked(cell: Cell, params: Any) -> tuple[Cell, Any]:
    """The pair, if the parameters are the cell's."""
    parameters(cell, params)
    return cell, params


Layer = list[tuple[Cell, Any]]
"""One direction, or two."""


def assembled(layers: list[Layer], dropout: float = 0.0, merge: str = "concatenate") -> tuple[Any, Any]:
    """A cell, a `Bidirectional` or a `Stack` of layers, and its parameters."""
    made = [
        one[0] if len(one) == 1 else (Bidirectional(one[0][0], merge), Directions(one[0][1], one[1][1]))
        for one in layers
    ]
    if len(made) == 1:
        return made[0]
    return Stack([cell for cell, _ in made], dropout), tuple(params for _, params in made)


def taken_apart(what: str, cell: Any, params: Any) -> list[Layer]:
    """What `assembled` put together; layers of one form, as frameworks have them.

    Raises:
        TypeError: the parameters are not the cell's.
        ValueError: layers differ in kind, size or directions, or two directions are not concatenated.
    """
    parameters(cell, params)
    cells = cell.cells if isinstance(cell, Stack) else (cell,)
    owned = params if isinstance(cell, Stack) else (params,)
    layers: list[Layer] = []
    for one, own in zip(cells, owned, strict=True):
        if isinstance(one, Bidirectional) and one.merge != "concatenate":
            raise ValueError(f"{what} concatenates the outputs of two directions; {one!r} adds them up")
        layers.append([(one.cell, p) for p in own] if isinstance(one, Bidirectional) else [(one, own)])
    forms = {(type(c), c.hidden_size, c.output_size, len(layer)) for layer in layers for c, _ in layer}
    if len(forms) > 1:
        raise ValueError(
            f"{what} has layers of one kind and size, all in one direction or all in two; not {cell!r}"
        )
    return layers


def one_cell(what: str, cell: Any, params: Any) -> None:
    """Raise unless it is a single cell with its parameters."""
    if isinstance(cell, Layers):
        raise TypeError(f"{what} is one cell; convert the layers of {cell!r} one by one")
    parameters(cell, params)


def chosen(what: str, found: dict[str, Any], name: str | None, how: str = "layer=") -> tuple[str, Any]:
    """What is found under a name, and the name; the only one for None.

    Args:
        what: where it was looked for, for the error's words.
        found: recurrent layers by name.
        name: the name, or how one alone of the names ends, after a "/" or a ".".
        how: how one is named, for the error's words.

    Raises:
        ValueError: no layer of that name, or several of which none is named.
    """
    if name is None and len(found) == 1:
        return next(iter(found.items()))
    ends = ending(found, name)
    if name not in found and len(ends) == 1:
        name = ends[0]
    if name is None or name not in found:
        asked = "no recurrent layer that lstmx knows" if name is None else f"no recurrent layer {name!r}"
        if name is None and found:
            asked = f"several recurrent layers: choose one with {how}"
        listed = f"; those are: {in_a_list(found)}" if found else ""
        raise ValueError(f"{what} has {asked}{listed}")
    return name, found[name]


def ending(found: Iterable[str], name: str | None) -> list[str]:
    """The names that are this one, or end with it after a "/" or a "."."""
    return [one for one in found if name is not None and f"/{one}".endswith((f"/{name}", f".{name}"))]


def in_a_list(names: Iterable[str]) -> str:
    """Names for an error's words, one a line where they are many."""
    shown = [repr(name) for name in names]
    return ", ".join(shown) if len(shown) <= 6 else "".join(f"\n  {name}" for name in shown)


def plain(
    what: str, cell: Any, *kinds: Cell, activations: tuple[str, ...] = (), gates: tuple[str, ...] = ()
) -> None:
    """Raise unless the cell has the options of one of `kinds`, whose sizes do not matter.

    Args:
        what: the framework, for the error's words.
        cell: the cell.
        kinds: cells that it can express.
        activations: those of a candidate and an output that it can, too; without, those of `kinds` alone.
        gates: as `activations`, of gates.

    Raises:
        ValueError: the cell has others, which the framework cannot express.
    """
    chosen_from = {"gate_activation": gates} | dict.fromkeys(
        ("activation", "candidate_activation", "output_activation"), activations
    )

    def options(one: Any) -> tuple[Any, ...]:
        free = ("input_size", "hidden_size", "forget_bias")
        names = (field.name for field in dataclasses.fields(one) if field.name not in free)
        return type(one), *(getattr(one, name) for name in names if not chosen_from.get(name))

    others = any(getattr(cell, name, known[0]) not in known for name, known in chosen_from.items() if known)
    if others or options(cell) not in map(options, kinds):
        functions = [" or ".join(known) for known in (activations, gates) if known]
        with_functions = f" with {' and '.join(functions)}" if functions else ""
        raise ValueError(
            f"{what} cannot express {cell!r}; it has {' and '.join(map(repr, kinds))} of any size{with_functions}"
        )


# ----------------------------------------------------------------------------------- layers in a model that runs


def once(name: str, calls: list[Any]) -> Any:
    """What a layer was called with, the only time."""
    if len(calls) != 1:
        raise ValueError(f"{name or 'the layer'} was called {len(calls)} times by the model; expected once")
    return calls[0]


def recorded(
    cell: Any, params: Any, xs: Any, state: Any, library: str | None, lengths: Any = None, mask: Any = None
) -> Any:
    """The history of a layer from NumPy arrays, in the library that is asked for.

    One for JAX of a pass that is `_SHORT` is computed in NumPy and handed over: JAX would take longer to compile.
    """
    given = map_tree(lambda x: np.ascontiguousarray(x), (params, xs, state))
    moved = in_library(given, library)
    length, *batch = xs.shape[:-1]
    products = math.prod(batch) * sum(weight.size for weight in leaves(params))  # of each step
    if not is_jax(namespace(moved[1])) or length * (products + _STEP) > _SHORT:
        return record(cell, *moved, lengths=lengths, mask=mask)
    return map_tree(jnp.asarray, record(cell, *given, lengths=lengths, mask=mask))
