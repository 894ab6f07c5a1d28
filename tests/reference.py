"""What the tests measure against: portable numbers, plain loops in NumPy, and the two libraries."""

import io

import hypothesis.strategies as st
import jax
import numpy as np
import pytest

import lstmx
from lstmx.linear import steps_at

CELLS = [lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN]
LIBRARIES = ["numpy", "jax"]


def slow_but(cases, always):
    """Cases for `parametrize`, of which those that `always` is true of are not slow."""
    several = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if always(*case) else pytest.mark.slow) for case in several]


def lcg(shape, seed, scale=1.0):
    """Portable numbers in (−scale, scale): s <- (1103515245 s + 12345) mod 2³¹, after five warm-up draws."""
    s, drawn = int(seed), []
    for _ in range(5 + int(np.prod(shape))):
        s = (1103515245 * s + 12345) % 2**31
        drawn.append(2 * s / 2**31 - 1)
    return scale * np.array(drawn[5:]).reshape(shape)


def lcg_params(kind, features, hidden, scale, forget_bias=0.0):
    """The cell and its parameters whose kernels, transposed as PyTorch keeps them, are the first `lcg` draws."""
    cell = kind(features, hidden)
    shapes = cell.parameter_shapes()
    kernels = (lcg(shape[::-1], seed, scale).T for seed, shape in enumerate(shapes[:2], start=1))
    biases = [lcg(shape, seed, scale) for seed, shape in enumerate(shapes[2:], start=3)]
    if kind is lstmx.GRU:  # PyTorch keeps two biases of three blocks
        second = lcg((3 * hidden,), 4, scale)
        biases[0][: 2 * hidden] += second[: 2 * hidden]
        biases[1] = second[2 * hidden :]
    if kind is lstmx.LSTM:
        biases[0][hidden : 2 * hidden] += forget_bias
    return cell, type(shapes)(*kernels, *biases)


def to(library, tree):
    """A tree of arrays in the named library."""
    return jax.tree.map(jax.numpy.asarray if library == "jax" else np.asarray, tree)


def draw_params(cell, draws, dtype="float64", scale=0.7):
    """Normal parameters, biases included, in NumPy."""
    shapes = cell.parameter_shapes()
    return type(shapes)(*(draws.normal(0, scale, shape).astype(dtype) for shape in shapes))


def draw_state(cell, draws, batch=(), dtype="float64"):
    """A normal state in NumPy."""
    return cell.state_type(*(draws.normal(size=(*batch, size)).astype(dtype) for size in cell.field_sizes))


def draw_pass(kind, length=7, batch=(), features=3, hidden=4, dtype="float64", seed=0):
    """A cell, its parameters, inputs and a non-zero initial state, in NumPy."""
    draws = np.random.default_rng(seed)
    cell = kind(features, hidden)
    params = draw_params(cell, draws, dtype)
    xs = draws.normal(size=(length, *batch, features)).astype(dtype)
    return cell, params, xs, draw_state(cell, draws, batch, dtype)


def random_history(kind, library="numpy", keep="all", **sizes):
    """A recorded pass from a non-zero initial state."""
    cell, params, xs, state = draw_pass(kind, **sizes)
    return lstmx.record(cell, *to(library, (params, xs, state)), keep=keep)


def linear_step(cell, params, before, x):
    """A step as the state after, the pre-activations, and its linear maps; or several in the leading axes."""
    after, a = cell.step(params, before, x)
    return after, a, steps_at(cell, params, before, x, a, after)


def logistic(a):
    """σ by its definition, for the moderate numbers of a reference."""
    return 1 / (1 + np.exp(-a))


def plain_step(cell, params, state, x):
    """One step written down from the equations, block by block: the state after, and the activations by name."""

    def block(kernel, k):
        return kernel[..., k * cell.hidden_size : (k + 1) * cell.hidden_size]

    W, U, b, h = params.input_kernel, params.recurrent_kernel, params.bias, state.hidden
    if isinstance(cell, lstmx.SimpleRNN):
        h = np.tanh(x @ W + h @ U + b)
        return lstmx.SimpleRNNState(h), {"candidate": h}
    a = [x @ block(W, k) + block(b, k) for k in range(W.shape[1] // cell.hidden_size)]
    u = [h @ block(U, k) for k in range(len(a))]
    if isinstance(cell, lstmx.GRU):
        r, z = logistic(a[0] + u[0]), logistic(a[1] + u[1])
        n = np.tanh(a[2] + r * (u[2] + params.candidate_bias))
        return lstmx.GRUState((1 - z) * n + z * h), {"reset_gate": r, "update_gate": z, "candidate": n}
    i, f, g, o = logistic(a[0] + u[0]), logistic(a[1] + u[1]), np.tanh(a[2] + u[2]), logistic(a[3] + u[3])
    c = f * state.cell + i * g
    gates = {"input_gate": i, "forget_gate": f, "candidate": g, "output_gate": o}
    return lstmx.LSTMState(o * np.tanh(c), c), gates


def plain_pass(cell, params, xs, state):
    """The states after each step and the activations by name, stacked over time."""
    states, activations = [], []
    for x in xs:
        state, gates = plain_step(cell, params, state, x)
        states.append(state)
        activations.append(gates)
    stacked = type(state)(*(np.stack(field) for field in zip(*states, strict=True)))
    return stacked, {name: np.stack([gates[name] for gates in activations]) for name in activations[0]}


def inner(left, right):
    """⟨left, right⟩ over all arrays of two trees."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return sum(float(np.sum(np.asarray(a) * np.asarray(b))) for a, b in pairs)


def assert_close(actual, expected, tolerance):
    """Two trees of one structure, equal to `tolerance` absolute and relative, array by array."""
    left, right = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_same(actual, expected):
    """Two trees equal to the bit, array by array."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def is_in(library, tree):
    """Whether every array of a tree belongs to the named library."""
    kind = jax.Array if library == "jax" else np.ndarray
    return all(isinstance(leaf, kind) for leaf in jax.tree.leaves(tree))


def render(figure):
    """Draw a figure as a PNG as it was laid out, where a warning is an error."""
    figure.set_layout_engine("none")
    figure.savefig(io.BytesIO(), format="png")


def labels(ax):
    """The texts of a legend."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)
