"""Activations by their words, with slopes and logarithms: of gates, of a candidate, of a cell state in the output.

At a kink the slope is 0, as on the flat side: ReLU, like that of JAX and Keras, has slope 1 where a > 0, and a
hard sigmoid its own only inside the open interval where it rises.
"""

from __future__ import annotations

import math

from lstmx.arrays import Array, activations, log_sigmoid, namespace, sigmoid, sigmoid_and_slope, tanh_slope

GATE_ACTIVATIONS = ("sigmoid", "hard_sigmoid", "hard_sigmoid_0.2")
_EDGES = {"hard_sigmoid": 3.0, "hard_sigmoid_0.2": 2.5}
"""Where a hard sigmoid, (a + edge) / (2 edge) cut off at 0 and 1, is 1; it is 0 at the negative of this."""


def activated(kind: str, a: Array) -> Array:
    """An activation of numbers [*lead, N]: of a gate, "tanh", "relu" or "identity"."""
    xp = namespace(a)
    if kind == "identity":
        return a
    if kind == "tanh":
        return xp.tanh(a)
    if kind == "sigmoid":
        return sigmoid(xp, a)
    zero = xp.zeros_like(a)
    if kind == "relu":
        return xp.where(a <= 0, zero, a)  # so that NaN stays NaN
    edge = _EDGES[kind]
    return xp.where(a <= -edge, zero, xp.where(a >= edge, xp.ones_like(a), (a + edge) / (2 * edge)))


def activated_and_slope(kind: str, a: Array) -> tuple[Array, Array]:
    """An activation and its derivative, both exact to rounding where they are small, too."""
    xp = namespace(a)
    if kind == "sigmoid":
        return sigmoid_and_slope(xp, a)
    if kind == "tanh":
        return xp.tanh(a), tanh_slope(xp, a)
    one = xp.ones_like(a)
    if kind == "identity":
        return a, one
    if kind == "relu":
        return activated(kind, a), xp.where(a > 0, one, xp.zeros_like(a))
    edge = _EDGES[kind]
    return activated(kind, a), xp.where((a > -edge) & (a < edge), one / (2 * edge), xp.zeros_like(a))


def gates_of(a: Array, size: int, gate: str, candidate: str = "", at: int | None = None) -> tuple[Array, ...]:
    """Each block of `size` columns of the last axis as a gate, but for block `at`, which is the candidate."""
    if gate == "sigmoid" and candidate != "relu":
        own = () if at is None else (at,)
        return activations(a, size, **{"linear" if candidate == "identity" else "tanh": own})
    starts = range(0, a.shape[-1], size)
    parts = (a[..., start : start + size] for start in starts)
    return tuple(activated(candidate if k == at else gate, part) for k, part in enumerate(parts))


def log_of_gate(kind: str, a: Array) -> Array:
    """Natural log of a gate from its pre-activation: exact near 0 and near 1, −inf only where a hard gate is 0."""
    if kind == "sigmoid":
        return log_sigmoid(a)
    xp, edge = namespace(a), _EDGES[kind]
    zero, closed, low = xp.zeros_like(a), a <= -edge, a < 0
    from_zero = (xp.where(low & ~closed, a, zero) + edge) / (2 * edge)  # each of the two only where it is read
    from_one = (xp.where(low, zero, xp.where(a >= edge, zero + edge, a)) - edge) / (2 * edge)
    return xp.where(closed, zero - math.inf, xp.where(low, xp.log(from_zero), xp.log1p(from_one)))


def bias_of_gate(kind: str, values: Array) -> Array:
    """The pre-activations at which a gate of this kind is σ(values)."""
    return values if kind == "sigmoid" else _EDGES[kind] * namespace(values).tanh(values / 2)


def gate_at(kind: str, bias: float) -> float:
    """A gate from its bias alone, in Python's numbers."""
    if kind == "sigmoid":
        small = math.exp(-abs(bias))
        return (1 if bias >= 0 else small) / (1 + small)
    return min(1.0, max(0.0, (bias + _EDGES[kind]) / (2 * _EDGES[kind])))


def gain_at(lost: float, taken: float) -> float:
    """The g at which 1 − lost + taken · g is 1; infinite where nothing is taken in.

    Raises:
        ValueError: nothing is lost either.
    """
    if taken == 0:
        if lost == 0:
            raise ValueError(
                "gates of exactly 0 or 1 keep the zero state as it is at every gain: no gain makes it unstable"
            )
        return math.inf
    return lost / taken
