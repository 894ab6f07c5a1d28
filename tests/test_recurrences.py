"""The zoo of step functions itself: each against other equations of the same recurrence, or the library's cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrences import (
    MAGNITUDES,
    OF_FRAMEWORKS,
    OF_THE_LIBRARY,
    PROBE,
    ZOO,
    equinox_parts,
    flat_step,
    nnx_parts,
    plain_pass,
)
from reference import assert_close

import lstmx


def drawn(name, length=7, seed=0):
    """A recurrence of the zoo, its parameters and inputs of one sequence."""
    recurrence = ZOO[name]
    return recurrence, *recurrence.draw(length=length, seed=seed)[:2]


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_THE_LIBRARY)
def test_a_cell_of_the_library_as_a_step_function_is_that_cell(name):
    recurrence, cell = ZOO[name], OF_THE_LIBRARY[name]
    for batch, begun in (((), False), ((2, 3), True)):
        params, xs, state = recurrence.draw(batch)
        state = state if begun else None
        plain = plain_pass(recurrence, params, xs, state)
        history = lstmx.record(cell, params, xs, state)
        assert_close(history.states, plain.states, 1e-14)
        assert_close(history.hidden_state, plain.outputs, 1e-14)
        assert set(plain.shown) == set(recurrence.shown)
        for gate, values in plain.shown.items():
            np.testing.assert_allclose(getattr(history, gate), values, atol=1e-14)


@pytest.mark.slow
def test_the_linear_unit_is_a_sum_of_powers_of_complex_numbers():
    recurrence, params, xs = drawn("linear unit")
    B = np.asarray(params["B"])
    B = B[0] + 1j * B[1]
    factor = MAGNITUDES * np.exp(1j * np.asarray(params["angle"]))
    z = sum(factor ** (len(xs) - 1 - s) * (B @ np.asarray(x)) for s, x in enumerate(xs))
    np.testing.assert_allclose(plain_pass(recurrence, params, xs).final, [z.real, z.imag], atol=1e-13)
    step, pack, _ = flat_step(recurrence, params, xs[0])
    jacobian = np.asarray(jax.jacfwd(step)(pack(recurrence.state)))
    expected = np.repeat(MAGNITUDES, 2)  # of a normal matrix: what it stretches by in every step
    np.testing.assert_allclose(np.sort(np.abs(np.linalg.eigvals(jacobian)))[::-1], expected, rtol=1e-13)
    np.testing.assert_allclose(np.linalg.svd(jacobian, compute_uv=False), expected, rtol=1e-13)


def test_the_matrix_memory_is_a_weighted_sum_over_the_past_without_a_stabiliser():
    recurrence, params, xs = drawn("mLSTM")
    p, x = (jax.tree.map(np.asarray, tree) for tree in (params, xs))
    q, k, v = x @ p["q"].T, x @ p["k"].T / 3**0.5, x @ p["v"].T
    log_forget = np.asarray(jax.nn.log_sigmoid(x @ p["f"] + p["f_bias"]))
    expected = []
    for t in range(len(x)):
        weights = np.array([np.exp(x[s] @ p["i"] + log_forget[s + 1 : t + 1].sum()) for s in range(t + 1)])
        scores = weights * (k[: t + 1] @ q[t])
        o = np.asarray(jax.nn.sigmoid(p["o"] @ x[t]))
        expected.append(o * (scores @ v[: t + 1]) / max(abs(scores.sum()), 1.0))
    plain = plain_pass(recurrence, params, xs)
    np.testing.assert_allclose(plain.outputs, expected, atol=1e-13)
    for gate in plain.shown.values():
        assert np.all((np.asarray(gate) >= 0) & (np.asarray(gate) <= 1))


def test_the_selective_state_is_an_explicit_sum_over_the_past():
    recurrence, params, xs = drawn("selective")
    p, x = (jax.tree.map(np.asarray, tree) for tree in (params, xs))
    delta = np.logaddexp(0, x @ p["delta"].T + p["delta_bias"])
    rate = np.exp(p["log_rate"])
    expected = []
    for t in range(len(x)):
        memory = sum(
            np.exp(-delta[s + 1 : t + 1].sum(axis=0)[:, None] * rate) * np.outer(delta[s] * x[s], p["B"] @ x[s])
            for s in range(t + 1)
        )
        expected.append(memory @ (p["C"] @ x[t]) + p["skip"] * x[t])
    np.testing.assert_allclose(plain_pass(recurrence, params, xs).outputs, expected, atol=1e-13)


def test_the_delta_net_is_a_product_of_generalised_reflections():
    recurrence, params, xs = drawn("delta net")
    plain = plain_pass(recurrence, params, xs)
    alpha, beta, k = (np.asarray(plain.shown[name]) for name in ("decay", "write", "key"))
    np.testing.assert_allclose(np.linalg.norm(k, axis=-1), 1, rtol=1e-14)
    S = np.asarray(recurrence.state)
    for t, x in enumerate(np.asarray(xs)):
        S = alpha[t] * S @ (np.eye(2) - beta[t] * np.outer(k[t], k[t]))
        S = S + beta[t] * np.outer(np.asarray(params["v"]) @ x, k[t])
    np.testing.assert_allclose(plain.final, S, atol=1e-13)
    np.testing.assert_allclose(plain.outputs[-1], S @ PROBE, atol=1e-13)


def test_the_nested_layers_are_two_loops_one_after_the_other():
    recurrence, params, xs = drawn("two layers")
    lower = upper = 0.0
    for x in np.asarray(xs):
        lower = np.tanh(np.asarray(params[0]["W"]) @ x + np.asarray(params[0]["U"]) @ (lower + np.zeros(2)))
        upper = np.tanh(np.asarray(params[1]["W"]) @ lower + np.asarray(params[1]["U"]) @ (upper + np.zeros(4)))
    final = plain_pass(recurrence, params, xs).final
    assert_close(final["layers"], (jnp.asarray(lower), [jnp.asarray(upper)]), 1e-14)


@pytest.mark.slow  # it imports two frameworks
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", OF_FRAMEWORKS)
def test_a_framework_s_cell_as_a_step_function_is_its_conversion(name):
    recurrence = ZOO[name]
    params, xs, state = recurrence.draw()
    plain = plain_pass(recurrence, params, xs, state)
    if name.startswith("linen"):
        cell, ours = lstmx.convert.from_flax(params)
    elif name.startswith("nnx"):
        nnx, graph, _, rest = nnx_parts()
        cell, ours = lstmx.convert.from_flax(nnx.merge(graph, params, rest))
    else:
        equinox, _, rest = equinox_parts(name.split()[1])
        cell, ours = lstmx.convert.from_equinox(equinox.combine(params, rest))
    first = {"linen LSTMCell": lambda c, h: (h, c)}.get(name, lambda *fields: fields)
    begun = cell.state_type(*(first(*state) if isinstance(state, tuple) else (state,)))
    assert_close(lstmx.run(cell, ours, xs, begun)[0], plain.outputs, 1e-13)
