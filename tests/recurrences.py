"""A zoo of recurrences as step functions of one sequence, and a plain `jax.lax.scan` to hold them against."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family import draw
from reference import to

import lstmx

D = 3  # features of x_t


class Recurrence(NamedTuple):
    """A step function, and what `lstmx.from_step` is told of it."""

    name: str
    step: Callable[..., Any]
    init: Callable[[np.random.Generator], Any]
    """Draws parameters: a tree of float64 arrays of JAX."""
    state: Any
    """The initial state of one sequence."""
    output: Any
    gates: tuple[str, ...]
    shown: tuple[str, ...]
    read: Callable[[Any], Any]
    """h_t of one sequence from its state, written down apart from `output`."""
    input_size: int = D

    def cell(self):
        return lstmx.from_step(self.step, self.state, self.input_size, self.output, self.gates, self.name)

    def draw(self, batch=(), length=6, seed=0):
        """Parameters, normal inputs [T, *batch, D], and a state [*batch, ...] that a short pass ended in."""
        draws = np.random.default_rng(seed)
        params = self.init(draws)
        before, xs = (jnp.asarray(draws.normal(size=(steps, *batch, self.input_size))) for steps in (3, length))
        return params, xs, plain_pass(self, params, before).final


class Plain(NamedTuple):
    """What a plain scan gives."""

    outputs: Any
    final: Any
    states: Any
    shown: dict[str, Any]


def split(made, state):
    """What a step returned, as the state and the dict of what it shows."""
    pair = isinstance(made, tuple) and len(made) == 2 and jax.tree.structure(made) != jax.tree.structure(state)
    return made if pair else (made, {})


def batched(function, axes):
    """A function of one sequence as one of arrays with so many axes in front."""
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def plain_pass(recurrence, params, xs, state=None):
    """A scan over time of the step, mapped over the batch: xs [T, *batch, D]; None for the initial state."""
    batch = xs.shape[1:-1]
    if state is None:
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch, *x.shape)), recurrence.state)

    def one(state, x):
        return split(recurrence.step(params, state, x), recurrence.state)

    def over_batch(state, x):
        after, shown = batched(one, len(batch))(state, x)
        return after, (after, shown)

    final, (states, shown) = jax.lax.scan(over_batch, state, xs)
    return Plain(batched(recurrence.read, xs.ndim - 1)(states), final, states, shown)


def flat_step(recurrence, params, x):
    """The step of one sequence as a function of the joint state [S], and the joint state of a state."""

    def pack(state):
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(state)])

    def unpack(joint):
        arrays, tree = jax.tree.flatten(recurrence.state)
        ends = np.cumsum([x.size for x in arrays])[:-1]
        parts = jnp.split(joint, ends)
        return tree.unflatten([part.reshape(x.shape) for part, x in zip(parts, arrays, strict=True)])

    return lambda joint: pack(split(recurrence.step(params, unpack(joint), x), recurrence.state)[0]), pack, unpack


def normal(draws, *shape, scale=0.6):
    return jnp.asarray(draws.normal(0, scale, shape))


# --------------------------------------------------------------------------------------- linear, complex diagonal

MAGNITUDES = np.array([0.95, 0.75, 0.55, 0.35])
N = len(MAGNITUDES)


def linear_unit(params, z, x):
    """z_t = λ ∘ z_{t-1} + B x with complex λ, z and B kept as real and imaginary parts, z [2, N]."""
    size, angle = params["size"], params["angle"]
    real, imaginary = size * jnp.cos(angle), size * jnp.sin(angle)
    drive = params["B"] @ x
    return jnp.stack([real * z[0] - imaginary * z[1], imaginary * z[0] + real * z[1]]) + drive


def linear_unit_parameters(draws):
    return {
        "size": jnp.asarray(MAGNITUDES),
        "angle": jnp.asarray(draws.uniform(0.3, 2.8, N)),
        "B": normal(draws, 2, N, D),
    }


def real_part(z):
    return z[0]


# ---------------------------------------------------------------------------------------------------------- mLSTM


def mlstm(params, state, x):
    """The matrix memory of xLSTM (Beck et al., 2024) with a stabilised exponential input gate, one head."""
    size = state["n"].size
    q, k, v = params["q"] @ x, params["k"] @ x / size**0.5, params["v"] @ x
    log_input = params["i"] @ x
    log_forget = jax.nn.log_sigmoid(params["f"] @ x + params["f_bias"])
    m = jnp.maximum(log_forget + state["m"], log_input)
    i, f = jnp.exp(log_input - m), jnp.exp(log_forget + state["m"] - m)
    C = f * state["C"] + i * jnp.outer(v, k)
    n = f * state["n"] + i * k
    o = jax.nn.sigmoid(params["o"] @ x)
    h = o * (C @ q) / jnp.maximum(jnp.abs(n @ q), jnp.exp(-m))
    return {"h": h, "C": C, "n": n, "m": m}, {"input_gate": i[None], "forget_gate": f[None], "output_gate": o}


def mlstm_parameters(draws, size=3):
    matrices = {name: normal(draws, size, D) for name in "qkvo"}
    return matrices | {"i": normal(draws, D), "f": normal(draws, D), "f_bias": jnp.asarray(1.5)}


MLSTM_START = {"h": jnp.zeros(3), "C": jnp.zeros((3, 3)), "n": jnp.zeros(3), "m": jnp.zeros(())}


# ------------------------------------------------------------------------------------------ selective state space


class Selective(NamedTuple):
    """State [D, M] of a diagonal state space model, and what was read of it."""

    memory: Any
    read: Any


def selective(params, state, x):
    """The recurrence of Mamba (Gu & Dao, 2023): the step size, B and C depend on the input."""
    delta = jax.nn.softplus(params["delta"] @ x + params["delta_bias"])
    kept = jnp.exp(-delta[:, None] * jnp.exp(params["log_rate"]))
    memory = kept * state.memory + jnp.outer(delta * x, params["B"] @ x)
    read = memory @ (params["C"] @ x) + params["skip"] * x
    return Selective(memory, read), {"retention": kept, "delta": delta}


def selective_parameters(draws, size=2):
    return {
        "delta": normal(draws, D, D),
        "delta_bias": jnp.asarray([-1.0, 0.0, 1.0]),
        "log_rate": normal(draws, D, size),
        "B": normal(draws, size, D),
        "C": normal(draws, size, D),
        "skip": normal(draws, D),
    }


# ------------------------------------------------------------------------------------------------ gated delta net

PROBE = np.array([0.6, -0.8])


def delta_net(params, S, x):
    """S_t = α (S − β (S k) kᵀ) + β v kᵀ with ‖k‖ = 1 (Yang, Kautz & Hatamizadeh, 2024), S [3, 2]."""
    k, v = params["k"] @ x, params["v"] @ x
    k = k / jnp.linalg.norm(k)
    alpha, beta = jax.nn.sigmoid(params["gates"] @ x + params["biases"])
    S = alpha * (S - beta * jnp.outer(S @ k, k)) + beta * jnp.outer(v, k)
    return S, {"decay": alpha[None], "write": beta[None], "key": k}


def delta_net_parameters(draws):
    biases = jnp.asarray([2.0, 0.0])
    return {"k": normal(draws, 2, D), "v": normal(draws, 3, D), "gates": normal(draws, 2, D), "biases": biases}


def probed(S):
    """What the memory holds under one fixed key."""
    return S @ jnp.asarray(PROBE, S.dtype)


# --------------------------------------------------------------------------------- two layers in one nested state


def two_layers(params, state, x):
    """Two tanh layers, of which the upper one reads the lower one's new state, and how often a step was taken."""
    lower, (upper,) = state["layers"]
    lower = jnp.tanh(params[0]["W"] @ x + params[0]["U"] @ lower)
    upper = jnp.tanh(params[1]["W"] @ lower + params[1]["U"] @ upper)
    return {"layers": (lower, [upper]), "average": 0.9 * state["average"] + 0.1 * upper.mean()}


def two_layers_parameters(draws):
    return [
        {"W": normal(draws, 2, D), "U": normal(draws, 2, 2)},
        {"W": normal(draws, 4, 2), "U": normal(draws, 4, 4)},
    ]


def upper_layer(state):
    return state["layers"][1][0]


# ------------------------------------------------------------------------- cells of the library as step functions


def lstm(params, state, x):
    """The equations of `lstmx.LSTM`."""
    a = x @ params.input_kernel + state.hidden @ params.recurrent_kernel + params.bias
    i, f, g, o = jnp.split(a, 4)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * state.cell + i * g
    shown = {"input_gate": i, "forget_gate": f, "candidate": g, "output_gate": o}
    return lstmx.LSTMState(o * jnp.tanh(c), c), shown


def gru(params, state, x):
    """The equations of `lstmx.GRU`, which resets after the product."""
    ar, az, an = jnp.split(x @ params.input_kernel + params.bias, 3)
    ur, uz, un = jnp.split(state.hidden @ params.recurrent_kernel, 3)
    r, z = jax.nn.sigmoid(ar + ur), jax.nn.sigmoid(az + uz)
    n = jnp.tanh(an + r * (un + params.candidate_bias))
    h = (1 - z) * n + z * state.hidden
    return lstmx.GRUState(h), {"reset_gate": r, "update_gate": z, "candidate": n}


def slstm(params, state, x):
    """The equations of `lstmx.SLSTM`; of an empty state nothing is kept."""
    a = x @ params.input_kernel + state.hidden @ params.recurrent_kernel + params.bias
    ai, af, az, ao = jnp.split(a, 4)
    empty = state.normaliser == 0
    old = jax.nn.log_sigmoid(af) + state.stabiliser
    m = jnp.where(empty, ai, jnp.maximum(old, ai))
    i, f = jnp.exp(ai - m), jnp.where(empty, 0.0, jnp.exp(old - m))
    z, o = jnp.tanh(az), jax.nn.sigmoid(ao)
    c, n = f * state.cell + i * z, f * state.normaliser + i
    shown = {"input_gate": i / n, "forget_gate": f * state.normaliser / n, "candidate": z, "output_gate": o}
    return lstmx.SLSTMState(o * c / n, c, n, m), shown


OF_THE_LIBRARY = {"LSTM": lstmx.LSTM(D, 4), "GRU": lstmx.GRU(D, 4), "SLSTM": lstmx.SLSTM(D, 4)}


def of_the_library(name, step, gates):
    cell = OF_THE_LIBRARY[name]

    def init(draws):
        return to("jax", draw(cell, seed=int(draws.integers(2**31)))[0])

    start = cell.state_type(*(jnp.zeros(size) for size in cell.field_sizes))
    shown = (*gates, "candidate")
    return Recurrence(name, step, init, start, "hidden", gates, shown, lambda state: state.hidden)


# -------------------------------------------------------------------------------------------- cells of frameworks


def keyed(draws):
    return jax.random.key(int(draws.integers(2**31)))


@functools.cache
def linen_cell(kind):
    linen = pytest.importorskip("flax.linen", reason="a cell of Flax is wrapped")
    return getattr(linen, kind)(4, dtype="float64", param_dtype="float64")


def linen_step(kind, params, carry, x):
    return linen_cell(kind).apply({"params": params}, carry, x)[0]


def linen(kind, start, output, read):
    def init(draws):
        return linen_cell(kind).init(keyed(draws), start, jnp.zeros(D))["params"]

    step = functools.partial(linen_step, kind)
    return Recurrence(f"linen {kind}", step, init, start, output, (), (), read)


@functools.cache
def nnx_parts():
    nnx = pytest.importorskip("flax.nnx", reason="a cell of Flax is wrapped")
    cell = nnx.GRUCell(D, 4, param_dtype="float64", dtype="float64", rngs=nnx.Rngs(0))
    return nnx, *nnx.split(cell, nnx.Param, ...)


def nnx_step(params, carry, x):
    nnx, graph, _, rest = nnx_parts()
    return nnx.merge(graph, params, rest)(carry, x)[0]


def nnx_parameters(draws):
    return jax.tree.map(lambda x: normal(draws, *x.shape), nnx_parts()[2])


@functools.cache
def equinox_parts(kind):
    equinox = pytest.importorskip("equinox", reason="a cell of Equinox is wrapped")
    cell = getattr(equinox.nn, kind)(D, 4, dtype="float64", key=jax.random.key(0))
    return equinox, *equinox.partition(cell, equinox.is_array)


def equinox_step(kind, params, state, x):
    equinox, _, rest = equinox_parts(kind)
    return equinox.combine(params, rest)(x, state)


def equinox(kind, start, output, read):
    def init(draws):
        return jax.tree.map(lambda x: normal(draws, *x.shape), equinox_parts(kind)[1])

    step = functools.partial(equinox_step, kind)
    return Recurrence(f"equinox {kind}", step, init, start, output, (), (), read)


# -------------------------------------------------------------------------------------------------------- the zoo

_VECTOR = jnp.zeros(4)

ZOO = {
    one.name: one
    for one in (
        Recurrence(
            "linear unit",
            linear_unit,
            linear_unit_parameters,
            jnp.zeros((2, N)),
            real_part,
            (),
            (),
            lambda z: z[0],
        ),
        Recurrence(
            "mLSTM",
            mlstm,
            mlstm_parameters,
            MLSTM_START,
            "h",
            ("input_gate", "forget_gate", "output_gate"),
            ("input_gate", "forget_gate", "output_gate"),
            lambda state: state["h"],
        ),
        Recurrence(
            "selective",
            selective,
            selective_parameters,
            Selective(jnp.zeros((D, 2)), jnp.zeros(D)),
            1,
            ("retention",),
            ("retention", "delta"),
            lambda state: state.read,
        ),
        Recurrence(
            "delta net",
            delta_net,
            delta_net_parameters,
            jnp.asarray([[0.1, 0.2], [0.0, -0.3], [0.4, 0.0]]),
            probed,
            ("decay", "write"),
            ("decay", "write", "key"),
            lambda S: S @ jnp.asarray(PROBE, S.dtype),
        ),
        Recurrence(
            "two layers",
            two_layers,
            two_layers_parameters,
            {"layers": (jnp.zeros(2), [jnp.zeros(4)]), "average": jnp.zeros(())},
            upper_layer,
            (),
            (),
            lambda state: state["layers"][1][0],
        ),
        of_the_library("LSTM", lstm, ("input_gate", "forget_gate", "output_gate")),
        of_the_library("GRU", gru, ("reset_gate", "update_gate")),
        of_the_library("SLSTM", slstm, ("input_gate", "forget_gate", "output_gate")),
        linen("LSTMCell", (_VECTOR, _VECTOR), 1, lambda carry: carry[1]),
        linen("GRUCell", _VECTOR, None, lambda carry: carry),
        Recurrence("nnx GRUCell", nnx_step, nnx_parameters, _VECTOR, None, (), (), lambda carry: carry),
        equinox("LSTMCell", (_VECTOR, _VECTOR), None, lambda state: state[0]),
        equinox("GRUCell", _VECTOR, None, lambda state: state),
    )
}
OF_FRAMEWORKS = tuple(name for name in ZOO if "Cell" in name)
FORMS = ("linear unit", "mLSTM", "LSTM")  # one array and several, gates and none, functions and names
