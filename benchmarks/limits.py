"""The matrix products of an LSTM alone, in the same shapes: what no LSTM by products can be faster than."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import replicated
from benchmarks.problem import Problem


class Limit:
    """`forward()` and `gradient()` do the products and nothing else.

    Forward: concat(x, h) @ [W; U] at each step, its first H columns taken for h. Gradient: that, then a loop with
    d @ Uᵀ at each step, then one product for dW and dU and one for dx.

    Args:
        problem: the case.
        place: puts [T, B, ...] arrays where they are to lie.
    """

    def __init__(self, problem: Problem, place: Any) -> None:
        case = problem.case
        w, u, _ = problem.params
        factors = np.random.default_rng(1).standard_normal((*problem.xs.shape[:2], 4 * case.units), "float32")
        both = np.concatenate([problem.xs, problem.cotangent], axis=-1)  # as large as inputs and states are
        self._rows = [jax.device_put(place(x)) for x in (problem.xs, problem.cotangent, both, factors)]
        hand_back = np.ascontiguousarray(u.T) / 4  # so that d does not grow
        weights = np.concatenate([w, u]), hand_back, np.ascontiguousarray(w.T)
        self._kernel, self._hand_back, self._input = replicated(weights, self._rows[0])

    def forward(self) -> Any:
        return _forward(self._kernel, self._rows[0], self._hand_back.shape[1])

    def gradient(self) -> Any:
        return _gradient(self._kernel, self._hand_back, self._input, *self._rows)


@jax.jit(static_argnums=2)
def _forward(kernel: Any, xs: Any, units: int) -> Any:
    def step(h: Any, x: Any) -> Any:
        return (jnp.concatenate([x, h], axis=-1) @ kernel)[:, :units], None

    return jax.lax.scan(step, jnp.zeros((xs.shape[1], units)), xs)[0]


@jax.jit
def _gradient(kernel: Any, hand_back: Any, inputs: Any, xs: Any, cotangent: Any, both: Any, d: Any) -> Any:
    def step(carry: Any, direct: Any) -> Any:
        return jnp.concatenate([carry + direct] * 4, axis=-1) @ hand_back, None

    units = hand_back.shape[1]
    back = jax.lax.scan(step, jnp.zeros((xs.shape[1], units)), cotangent, reverse=True)[0]
    return _forward(kernel, xs, units), back, jnp.einsum("tbi,tbj->ij", both, d), d @ inputs
