"""Equinox: `LSTMCell` and `GRUCell`."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import jax, namespace, require
from lstmx.cells import GRU, LSTM, Cell
from lstmx.convert.named import Named, gru, lstm, one_cell, plain


def from_equinox(module: Any, dtype: str | None = None) -> tuple[Cell, Any]:
    """An `equinox.nn.LSTMCell` or `GRUCell`.

    A model that scans a cell inside its `__call__` is recorded by the cell and what it reads there, time first:

        cell, params = lstmx.convert.from_equinox(model.cell)
        history = lstmx.record(cell, params, xs)

    Args:
        module: the cell.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.

    Returns:
        The cell and its parameters, JAX arrays; biases are zeros where the module has none.

    Raises:
        TypeError: this is none of the two, or a class with equations of its own; or an array of another dtype than
            float32 or float64.
        ValueError: an array is missing, surplus or of another shape.
        ImportError: Equinox is not installed.
    """
    nn = require("equinox", "from_equinox").nn
    kind = next((one for one in (nn.LSTMCell, nn.GRUCell) if isinstance(module, one)), None)
    name = type(module).__name__
    full = f"{type(module).__module__}.{name}".removeprefix("builtins.")
    if kind is None or type(module).__call__ is not kind.__call__:
        raise TypeError(
            f"module is a {full}{'' if kind is None else ' with a __call__ of its own'}; "
            f"expected an equinox.nn.LSTMCell or GRUCell{_inside(module, nn)}"
        )
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="."): x
        for path, x in jax.tree_util.tree_flatten_with_path(module)[0]
    }
    named, count = Named(f"the {name}", arrays, dtype), 4 if kind is nn.LSTMCell else 3
    recurrent = named.take("weight_hh", (None, None)).T
    h = recurrent.shape[0]
    kernel = named.take("weight_ih", (count * h, None)).T
    names = {"bias": count * h} | ({} if count == 4 else {"bias_n": h})
    xp = namespace(kernel)
    if module.use_bias:
        biases = [named.take(one, (size,)) for one, size in names.items()]
    else:  # then the module reads none, whether it has some or not
        biases = [xp.zeros((size,), dtype=kernel.dtype) for size in names.values()]
    named.nothing_left()
    return (lstm if count == 4 else gru)(kernel, recurrent, *biases)


def _inside(module: Any, nn: Any) -> str:
    """Where such cells are in a module, for the words of an error."""

    def is_cell(x: Any) -> bool:
        return isinstance(x, (nn.LSTMCell, nn.GRUCell))

    found = jax.tree_util.tree_flatten_with_path(module, is_leaf=is_cell)[0]
    places = [f"module{jax.tree_util.keystr(path)}" for path, x in found if path and is_cell(x)]
    return f": convert {' or '.join(places)}" if places else ""


def to_equinox(cell: Any, params: Any) -> Any:
    """The `equinox.nn.LSTMCell` or `GRUCell` that computes the same.

    Args:
        cell: an `LSTM` or `GRU` without options.
        params: its parameters, JAX arrays.

    Returns:
        The module, with biases.

    Raises:
        TypeError: these are layers, or the parameters are not the cell's.
        ValueError: another kind of cell, or options.
        ImportError: Equinox is not installed.
    """
    one_cell("a module of Equinox", cell, params)
    plain("Equinox", cell, LSTM(1, 1), GRU(1, 1))
    nn, tree_at = (getattr(require("equinox", "to_equinox"), name) for name in ("nn", "tree_at"))
    kind = nn.LSTMCell if isinstance(cell, LSTM) else nn.GRUCell
    module = kind(cell.input_size, cell.hidden_size, key=jax.random.key(0))
    names = ["weight_ih", "weight_hh", "bias", *(["bias_n"] if isinstance(cell, GRU) else [])]
    arrays = [params.input_kernel.T, params.recurrent_kernel.T, *params[2:]]
    return tree_at(lambda one: [getattr(one, name) for name in names], module, arrays)
