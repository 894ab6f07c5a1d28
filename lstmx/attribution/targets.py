"""What is explained: a number of each sequence's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lstmx.arrays import Array, all_finite, fetched, is_jax, is_traced, jax, namespace, result
from lstmx.checks import shaped
from lstmx.gradients.layered import last_outputs
from lstmx.history import where_held


@result(static=("function",))
class Target:
    """A number of each sequence's outputs.

    Attributes:
        weights: of a number that is linear in the outputs, [T, *batch, H]: Σ_t ⟨w_t, h_t⟩ + constant; None for
            another one.
        constant: what is added, [*batch].
        function: of the outputs [T, H] of one sequence, a number; None for a linear one.
    """

    weights: Array | None
    constant: Array
    function: Callable[[Array], Any] | None = None

    def values(self, outputs: Array) -> Array:
        """The number of each sequence, [*more, *batch], from outputs [T, *more, *batch, H]."""
        xp = namespace(outputs)
        if self.weights is not None:
            return xp.sum(outputs * self._among(outputs), axis=(0, -1)) + self.constant
        return _over_sequences(self._number, outputs)

    def cotangents(self, outputs: Array) -> Array:
        """The derivative of each sequence's number, like the outputs [T, *more, *batch, H]."""
        if self.weights is not None:
            return namespace(outputs).broadcast_to(self._among(outputs), outputs.shape)
        return _over_sequences(jax.grad(self._number), outputs, time=True)

    def _among(self, outputs: Array) -> Array:
        """The weights with the axes that the outputs have between time and batch."""
        assert self.weights is not None
        more = outputs.ndim - self.weights.ndim
        return self.weights.reshape(self.weights.shape[0], *(1,) * more, *self.weights.shape[1:])

    def _number(self, outputs: Array) -> Array:
        assert self.function is not None
        return self.function(outputs)

    def sequence(self, index: tuple[int, ...]) -> Target:
        """That of one sequence, with no batch axes."""
        weights = None if self.weights is None else self.weights[(slice(None), *index)]
        return Target(weights, self.constant[index], self.function)


def _over_sequences(function: Callable[[Array], Array], outputs: Array, time: bool = False) -> Array:
    """A function of [T, H] for every sequence of [T, *lead, H]: [*lead], or with `time` [T, *lead, H]."""
    flat = outputs.reshape(outputs.shape[0], -1, outputs.shape[-1])
    found = jax.vmap(function, in_axes=1, out_axes=1 if time else 0)(flat)
    return found.reshape(outputs.shape if time else outputs.shape[1:-1])


def target_of(history: Any, target: Any) -> Target:
    """What the caller wants explained.

    Args:
        history: the recorded pass.
        target: as for `attribute`.

    Raises:
        TypeError: another kind of target, a function with a history in NumPy, or an array of another dtype.
        ValueError: an array of another shape, a class outside the readout, or a function that gives no number.
    """
    outputs = history.outputs
    xp, batch = namespace(outputs), history.batch
    zero = xp.zeros(batch, dtype=outputs.dtype)
    if callable(target):
        return Target(None, zero, _checked(outputs, target))
    if type(target) is tuple:
        readout, bias = _column(target, outputs, batch)
        return Target(last_outputs(history) * readout, zero + bias)
    if not hasattr(target, "__array_namespace__"):
        raise TypeError(
            f"target is a {type(target).__name__}; expected weights of the last output [H] or of all outputs "
            "[T, *batch, H], a pair of a readout and a class, or under JAX a function of one sequence's outputs "
            "[T, H] that gives a number"
        )
    if target.ndim == 1:
        shaped("target", target, (outputs.shape[-1],), outputs.dtype, "weights of the last output [H]")
        _finite("target", target)
        return Target(last_outputs(history) * xp.asarray(target), zero)
    shaped("target", target, tuple(outputs.shape), outputs.dtype, "weights of the outputs [T, *batch, H]")
    wanted = where_held(_held(history), target)
    _finite("target", wanted)
    return Target(wanted, zero)


def _checked(outputs: Array, function: Any) -> Any:
    if not is_jax(namespace(outputs)):
        raise TypeError(
            "target is a function, which takes JAX to differentiate; this history is in NumPy. Pass weights of "
            "the outputs, [H] or [T, *batch, H]"
        )
    one = jax.ShapeDtypeStruct((outputs.shape[0], outputs.shape[-1]), outputs.dtype)
    made = jax.eval_shape(function, one)
    if not hasattr(made, "dtype") or made.shape != () or not jax.numpy.issubdtype(made.dtype, jax.numpy.floating):
        came = f"an array {made.shape} of {made.dtype}" if hasattr(made, "dtype") else f"a {type(made).__name__}"
        raise ValueError(f"target gives {came} of one sequence's outputs [T, H]; expected a real number")
    return function


def _column(target: tuple[Any, ...], outputs: Array, batch: tuple[int, ...]) -> tuple[Array, Array]:
    """Weights [*batch, H] and bias [*batch] of a class of a readout."""
    if len(target) != 2:
        raise ValueError(f"target is a tuple of {len(target)}; expected a pair of a readout and a class")
    readout, which = target
    kernel, bias = (readout.kernel, readout.bias) if hasattr(readout, "kernel") else (readout, None)
    size, xp = outputs.shape[-1], namespace(outputs)
    if not hasattr(kernel, "__array_namespace__") or kernel.ndim != 2 or kernel.shape[0] != size:
        came = f"of shape {tuple(kernel.shape)}" if hasattr(kernel, "shape") else f"a {type(kernel).__name__}"
        raise ValueError(
            f"the readout of the target is {came}; expected a kernel [H, O], here [{size}, O], or an object with "
            "a kernel and a bias, such as lstmx.ReadoutParams(kernel, bias)"
        )
    count = kernel.shape[1]
    shaped("the readout of the target", kernel, (size, count), outputs.dtype, "[H, O]")
    _finite("the readout of the target", kernel)
    if bias is None:
        bias = xp.zeros(count, dtype=outputs.dtype)
    shaped("the readout's bias of the target", bias, (count,), outputs.dtype, "[O]")
    _finite("the readout's bias of the target", bias)
    classes = which if is_traced(which) else fetched(which)
    if classes.dtype.kind not in "iu":
        raise TypeError(
            f"the class of the target is {which!r}; expected an integer, or one for each sequence, {batch}"
        )
    if classes.shape not in ((), batch):
        raise ValueError(
            f"the class of the target has shape {classes.shape}; expected an integer, or one for each sequence, "
            f"{batch}"
        )
    if not is_traced(which) and classes.size and not (classes.min() >= 0 and classes.max() < count):
        raise ValueError(f"the class of the target is {which!r}; the readout has classes 0 to {count - 1}")
    chosen = xp.asarray(classes)
    picked = xp.take(xp.asarray(kernel), chosen, axis=1)  # under JAX NaN for a traced class that is none
    weights = xp.broadcast_to(xp.moveaxis(picked, 0, -1), (*batch, size))
    return weights, xp.take(xp.asarray(bias), chosen)


def _finite(name: str, values: Array) -> None:
    """Raise a ValueError where an array holds NaN or infinity."""
    if not is_traced(values) and not all_finite(values):
        at = tuple(int(k) for k in np.argwhere(~np.isfinite(fetched(values)))[0])
        where = ", ".join(map(str, at))
        raise ValueError(f"{name} is {fetched(values)[at]} at [{where}]; expected finite numbers")


def _held(history: Any) -> Array | None:
    return None if history.counts is None else ~history.counts
