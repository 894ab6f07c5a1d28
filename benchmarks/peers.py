"""The same LSTM in every framework, built from one set of weights, behind one face.

A candidate has `forward()` and `gradient()`, which compute and return the framework's own arrays, and
`outputs(result)` and `gradients(result)`, which read such a result as NumPy arrays in the canonical layout:
outputs [T, B, H]; gradients of W [D, 4H], U [H, 4H], b [4H] (blocks i, f, g, o) and of the inputs [T, B, D].
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.problem import Problem

PACKAGES = {"flax": "flax", "equinox": "equinox", "haiku": "haiku", "keras": "keras", "torch": "torch"}
"""The module that each peer needs, in the order of the tables."""
JAX_PEERS = ("flax", "equinox", "haiku", "keras")
TITLES = {
    "flax": "Flax OptimizedLSTMCell",
    "equinox": "Equinox LSTMCell",
    "haiku": "Haiku LSTM",
    "keras": "Keras LSTM (JAX)",
    "torch": "PyTorch nn.LSTM",
}


def installed(name: str) -> bool:
    """Whether the peer's package is there."""
    return importlib.util.find_spec(PACKAGES[name]) is not None


class Form(NamedTuple):
    """A JAX framework's LSTM."""

    apply: Callable[[Any, Any], Any]
    """`apply(params, xs)` returns all outputs."""
    params: Any
    canonical: Callable[[Any], tuple[Any, Any, Any]]
    """W, U, b of the framework's parameters, or their gradients of the framework's gradients."""
    batch_first: bool = False


class JaxCandidate:
    """A `Form` compiled, with its arrays on the device.

    Args:
        problem: the case.
        form: the framework's LSTM.
        place: puts inputs and cotangent where they are to lie.
        compiled: wrap the forward pass in `jax.jit`; false for one that is compiled on its own.
    """

    def __init__(self, problem: Problem, form: Form, place: Callable = np.asarray, compiled: bool = True) -> None:
        import jax

        self._form = form
        self.xs, self.cotangent = (place(self._turned(x)) for x in (problem.xs, problem.cotangent))
        self.xs, self.cotangent = jax.device_put((self.xs, self.cotangent))
        self.params = replicated(form.params, self.xs)
        self._forward = jax.jit(form.apply) if compiled else form.apply

        @jax.jit
        def gradient(params: Any, xs: Any, cotangent: Any) -> Any:
            outputs, pull = jax.vjp(form.apply, params, xs)
            return outputs, pull(cotangent)

        self.compiled_gradient = gradient

    def forward(self) -> Any:
        return self._forward(self.params, self.xs)

    def gradient(self) -> Any:
        return self.compiled_gradient(self.params, self.xs, self.cotangent)

    def outputs(self, result: Any) -> np.ndarray:
        return self._turned(np.asarray(result))

    def gradients(self, result: Any) -> tuple[np.ndarray, ...]:
        params, inputs = result[1]
        return (*map(np.asarray, self._form.canonical(params)), self._turned(np.asarray(inputs)))

    def _turned(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.swapaxes(0, 1)) if self._form.batch_first else x


def replicated(params: Any, xs: Any) -> Any:
    """Parameters on every device that holds a part of xs, as a training step would leave them."""
    import jax

    if len(xs.devices()) == 1:
        return jax.tree.map(jax.numpy.asarray, params)
    return jax.device_put(params, jax.sharding.NamedSharding(xs.sharding.mesh, jax.sharding.PartitionSpec()))


def ours(problem: Problem, differentiation: str = "pullback") -> Form:
    """This library's `run`."""
    import lstmx

    def apply(params: Any, xs: Any) -> Any:
        return lstmx.run(problem.cell, params, xs, differentiation=differentiation)[0]

    return Form(apply, problem.params, tuple)


def flax(problem: Problem) -> Form:
    """`OptimizedLSTMCell` in `nn.RNN`: a kernel per gate, the bias on the hidden side."""
    import flax.linen as nn

    module = nn.RNN(nn.OptimizedLSTMCell(problem.case.units), time_major=True)
    cell: dict[str, Any] = {}
    for gate, w, u, b in zip("ifgo", *(np.split(x, 4, axis=-1) for x in problem.params), strict=True):
        cell[f"i{gate}"] = {"kernel": w}
        cell[f"h{gate}"] = {"kernel": u, "bias": b}

    def canonical(params: Any) -> tuple[Any, Any, Any]:
        found = params["params"]["cell"]
        gates = [(found[f"i{g}"]["kernel"], found[f"h{g}"]["kernel"], found[f"h{g}"]["bias"]) for g in "ifgo"]
        w, u, b = (np.concatenate(parts, axis=-1) for parts in zip(*gates, strict=True))
        return w, u, b

    return Form(module.apply, {"params": {"cell": cell}}, canonical)


def equinox(problem: Problem) -> Form:
    """`LSTMCell` under `vmap` over the batch in a `lax.scan` over time: kernels transposed."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    case = problem.case
    w, u, b = problem.params
    cell = eqx.nn.LSTMCell(case.features, case.units, key=jax.random.key(0))
    weights = tuple(map(jnp.asarray, (w.T, u.T, b)))
    cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, weights)

    def apply(cell: Any, xs: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            state = jax.vmap(cell)(x, state)
            return state, state[0]

        zeros = jnp.zeros((case.batch, case.units))
        return jax.lax.scan(step, (zeros, zeros), xs)[1]

    return Form(apply, cell, lambda c: (c.weight_ih.T, c.weight_hh.T, c.bias))


def haiku(problem: Problem) -> Form:
    """`LSTM` in `dynamic_unroll`: one kernel of both, columns i, g, f, o, and 1 added to the forget bias."""
    import haiku as hk

    case = problem.case

    def unroll(xs: Any) -> Any:
        core = hk.LSTM(case.units)
        return hk.dynamic_unroll(core, xs, core.initial_state(case.batch))[0]

    def swapped(x: Any) -> Any:
        i, f, g, o = np.split(np.asarray(x), 4, axis=-1)  # its own inverse
        return np.concatenate([i, g, f, o], axis=-1)

    w, u, b = problem.params
    bias = b.copy()
    bias[case.units : 2 * case.units] -= 1
    params = {"lstm/linear": {"w": swapped(np.concatenate([w, u])), "b": swapped(bias)}}

    def canonical(params: Any) -> tuple[Any, Any, Any]:
        both = swapped(params["lstm/linear"]["w"])
        return both[: case.features], both[case.features :], swapped(params["lstm/linear"]["b"])

    return Form(hk.without_apply_rng(hk.transform(unroll)).apply, params, canonical)


def keras(problem: Problem) -> Form:
    """The `LSTM` layer by `stateless_call`: our layout, batch first."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    case = problem.case
    layer = keras.layers.LSTM(case.units, return_sequences=True)
    layer.build((case.batch, case.length, case.features))
    fixed = [variable.value for variable in layer.non_trainable_variables]

    def apply(params: Any, xs: Any) -> Any:
        return layer.stateless_call(list(params), fixed, xs)[0]

    return Form(apply, tuple(problem.params), tuple, batch_first=True)


class TorchCandidate:
    """`nn.LSTM`: kernels transposed, two biases of which one stays zero."""

    def __init__(self, problem: Problem) -> None:
        import torch

        case = problem.case
        w, u, b = (torch.tensor(x.T.copy()) for x in problem.params)
        self._torch = torch
        self._module = torch.nn.LSTM(case.features, case.units)
        with torch.no_grad():
            self._module.weight_ih_l0.copy_(w)
            self._module.weight_hh_l0.copy_(u)
            self._module.bias_ih_l0.copy_(b)
            self._module.bias_hh_l0.zero_()
        self._xs = torch.tensor(problem.xs)
        self._traced = torch.tensor(problem.xs, requires_grad=True)
        self._cotangent = torch.tensor(problem.cotangent)

    def forward(self) -> Any:
        with self._torch.no_grad():
            return self._module(self._xs)[0]

    def gradient(self) -> Any:
        for leaf in (*self._module.parameters(), self._traced):
            leaf.grad = None
        outputs = self._module(self._traced)[0]
        outputs.backward(self._cotangent)
        return outputs.detach(), [x.grad for x in self._module.parameters()], self._traced.grad

    def outputs(self, result: Any) -> np.ndarray:
        return result.numpy()

    def gradients(self, result: Any) -> tuple[np.ndarray, ...]:
        w, u, b, _ = (x.numpy() for x in result[1])
        return w.T, u.T, b, result[2].numpy()


FORMS = {"flax": flax, "equinox": equinox, "haiku": haiku, "keras": keras}


def build(name: str, problem: Problem) -> JaxCandidate | TorchCandidate:
    """The peer of this name, or "lstmx" on one device."""
    if name == "torch":
        return TorchCandidate(problem)
    if name == "lstmx":
        return JaxCandidate(problem, ours(problem), compiled=False)
    return JaxCandidate(problem, FORMS[name](problem))
