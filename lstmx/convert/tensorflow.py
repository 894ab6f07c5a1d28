"""TensorFlow 1: the variables of its `LSTMCell`, `BasicLSTMCell`, `GRUCell` and `BasicRNNCell`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lstmx.arrays import namespace
from lstmx.cells import Cell
from lstmx.checks import finite_number
from lstmx.convert.haiku import lstm_of_one_kernel
from lstmx.convert.named import Named, chosen, gru_reset_before, simple

_USUAL = re.compile(r"(?:^|/)(?:basic_)?(?P<kind>lstm|rnn)_cell(_\d+)?$")


def from_tensorflow(
    arrays: dict[str, Any], prefix: str = "", forget_bias: float = 1.0, dtype: str | None = None
) -> tuple[Cell, Any]:
    """A cell of TensorFlow 1 from its variables by name.

    A checkpoint gives them so, in TensorFlow:

        reader = tf.train.load_checkpoint(path)
        arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

    Args:
        arrays: the arrays of one cell or a whole model: {"rnn/lstm_cell/kernel": [D + H, 4H],
            "rnn/lstm_cell/bias": [4H]}, or of a basic_lstm_cell, gru_cell or basic_rnn_cell. What an optimizer
            keeps beside them, such as "kernel/Adam", is left out.
        prefix: the scope of the cell, such as "decoder/rnn/lstm_cell", where there are several or it has a name of
            its own; then with one kernel it is taken to be an LSTM.
        forget_bias: what the LSTM adds to its forget gate at run time, which a checkpoint does not tell:
            TensorFlow's cells add 1 where they are not told otherwise.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.

    Returns:
        The cell and its parameters. The forget gate's bias here has `forget_bias` in it. TensorFlow's GRU resets
        before the product. Activations are taken to be TensorFlow's own, sigmoid and tanh, and cells not to be
        clipped; variables do not tell.

    Raises:
        TypeError: this is no dict; or an array of another dtype than float32 or float64.
        ValueError: no cell, or several of which none is named; an array is missing, surplus (as of peepholes or a
            projection) or of another shape; or `forget_bias` is not finite.
    """
    finite_number("forget_bias", forget_bias)
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays is a {type(arrays).__name__}; expected a dict of arrays by name")
    named = {str(name).removesuffix(":0"): x for name, x in arrays.items()}
    prefix = prefix.rstrip("/")
    named = {name: x for name, x in named.items() if name.rpartition("/")[0] not in named}  # no slots
    own = {name: x for name, x in named.items() if not prefix or name.startswith(f"{prefix}/")}
    cells = _cells(own)
    if prefix not in cells and f"{prefix}/kernel".lstrip("/") in own:
        cells = {prefix: "lstm"}
    if not cells:
        raise ValueError(
            f"arrays has no cell of TensorFlow 1{f' under {prefix!r}' if prefix else ''}; it has "
            f"{', '.join(named) or 'no arrays'}. Where one of these is an LSTM's kernel, name its scope with "
            "prefix="
        )
    name, kind = (prefix, cells[prefix]) if prefix in cells else chosen("arrays", cells, None, "prefix=")
    start = f"{name}/" if name else ""
    inside = {k.removeprefix(start): x for k, x in own.items() if k.startswith(start)}
    found = Named(f"arrays under {name!r}", inside, dtype)
    if kind == "lstm":
        made = lstm_of_one_kernel(found, "kernel", "bias", forget_bias)
    else:
        made = _gru(found) if kind == "gru" else _rnn(found)
    found.nothing_left()
    return made


def _cells(arrays: dict[str, Any]) -> dict[str, str]:
    """The scopes that are those of cells, each with its kind."""
    found: dict[str, str] = {}
    for name in arrays:
        scope, _, last = name.rpartition("/")
        if last == "kernel" and (match := _USUAL.search(scope)):
            found[scope] = match["kind"]
        elif name.endswith("gates/kernel"):
            found[name.removesuffix("gates/kernel").rstrip("/")] = "gru"
    return found


def _gru(named: Named) -> tuple[Cell, Any]:
    candidate = named.take("candidate/kernel", (None, None))
    h, xp = candidate.shape[1], namespace(candidate)
    both = xp.concat([named.take("gates/kernel", (len(candidate), 2 * h)), candidate], axis=-1)  # r, u, candidate
    bias = xp.concat([named.take("gates/bias", (2 * h,)), named.take("candidate/bias", (h,))])
    d = _features(named, "candidate/kernel", both, h)
    return gru_reset_before(both[:d], both[d:], bias)


def _rnn(named: Named) -> tuple[Cell, Any]:
    both = named.take("kernel", (None, None))
    h = both.shape[1]
    d = _features(named, "kernel", both, h)
    return simple(both[:d], both[d:], named.take("bias", (h,)))


def _features(named: Named, name: str, both: Any, h: int) -> int:
    """D of a kernel for x and h."""
    if len(both) <= h:
        raise ValueError(f"{named.what}: {name} has {len(both)} rows; expected D + H, more than {h}")
    return len(both) - h
