"""`long_jacobian`: logs of singular values against exact products, closed forms and log determinants."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from reference import assert_close, draw_pass, random_history, to

import lstmx
from lstmx.dynamics.product import log_singular_values


def without_weights(library, steps, forget_bias=3.0):
    """An LSTM of three units whose gates are what its biases say: each cell state decays by σ(forget_bias)."""
    params = lstmx.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.repeat([0.0, forget_bias, 0.0, 0.0], 3))
    xs = np.random.default_rng(0).normal(size=(steps, 2))
    return lstmx.record(lstmx.LSTM(2, 3), *to(library, (params, xs)))


def exact(history):
    """Logs of the singular values of the product, from the Jacobians in 400 digits."""
    with mpmath.workdps(400):
        product = mpmath.eye(history.cell.state_size)
        for jacobian in np.asarray(lstmx.jacobians(history)):
            product = mpmath.matrix(jacobian.tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        return np.sort([float(mpmath.log(value)) for value in values])[::-1]


def spread_out(spans, seed=0):
    """Rows and log scales of diag(e^spans) times a random orthogonal matrix."""
    rows = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(spans), len(spans))))[0]
    return rows, np.array(spans, float)


# --------------------------------------------------------------------------------------------- against 400 digits


@functools.cache
def three_units(kind):
    """Two units' inputs into three units over 60 steps, with moderate recurrent weights."""
    return random_history(kind, length=60, features=2, hidden=3, seed=3)


@pytest.mark.parametrize("length", [1, 2, 7, 60])
def test_singular_values_are_those_of_the_exact_product(kind, length):
    history = three_units(kind)[:length]
    made = lstmx.long_jacobian(history)
    np.testing.assert_allclose(made.log_singular_values, exact(history), rtol=1e-12, atol=1e-12)
    assert made.log_singular_values.dtype == np.float64
    assert made.steps == length


@pytest.mark.parametrize(("hidden", "length"), [(1, 200), (2, 45)])
def test_few_units_have_exact_values_too(kind, hidden, length):
    history = random_history(kind, length=length, features=1, hidden=hidden, seed=5)
    made = lstmx.long_jacobian(history).log_singular_values
    assert made.shape == (hidden * len(history.states),)
    np.testing.assert_allclose(made, exact(history), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (13, 40), (59, 60), (53, None)])
def test_a_stretch_is_that_of_the_history_cut_out(kind, start, stop):
    history = three_units(kind)
    made = lstmx.long_jacobian(history, start, stop)
    assert_close(made.log_singular_values, lstmx.long_jacobian(history[start:stop]).log_singular_values, 1e-12)
    assert made.steps == len(history[start:stop])


# -------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.sample(1)
def test_without_weights_half_of_the_directions_are_lost_and_the_others_decay_by_the_forget_gate(library):
    """V05: per step −0.0485873515737421 = ln σ(3); after the first step h adds its own slope to the norm."""
    history = without_weights(library, 300)
    made = lstmx.long_jacobian(history)
    readout = np.sort(np.log1p(0.25 * (1 - np.tanh(np.asarray(history.cell_state[-1])) ** 2) ** 2) / 2)[::-1]
    expected = -300 * 0.0485873515737421 + readout
    np.testing.assert_allclose(made.log_singular_values[:3], expected, rtol=1e-12)
    assert np.isneginf(made.log_singular_values[3:]).all()
    assert made.log_condition == math.inf
    assert "-inf" in str(made)


@pytest.mark.sample(1)
@pytest.mark.parametrize("steps", [1, 5000])
def test_a_linear_network_has_the_powers_of_its_singular_values(steps):
    """At rest, a SimpleRNN with a diagonal kernel: ln σ_i = T ln |w_i|, down to e^−11513."""
    diagonal = np.array([0.1, 0.9, -0.5])
    params = lstmx.SimpleRNNParams(np.zeros((1, 3)), np.diag(diagonal), np.zeros(3))
    history = lstmx.record(lstmx.SimpleRNN(1, 3), params, np.zeros((steps, 1)))
    made = lstmx.long_jacobian(history)
    np.testing.assert_allclose(made.log_singular_values, steps * np.log([0.9, 0.5, 0.1]), rtol=1e-12)
    np.testing.assert_allclose(made.exponents, np.log([0.9, 0.5, 0.1]), rtol=1e-12)


def test_a_zero_kernel_loses_everything(library):
    params = lstmx.SimpleRNNParams(np.ones((1, 3)), np.zeros((3, 3)), np.zeros(3))
    history = lstmx.record(lstmx.SimpleRNN(1, 3), *to(library, (params, np.ones((5, 1)))))
    made = lstmx.long_jacobian(history)
    assert np.isneginf(made.log_singular_values).all()
    assert np.isnan(made.log_condition)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_kernel_that_loses_one_direction_keeps_the_other(steps):
    """u vᵀ has the powers (vᵀ u)^(T−1) u vᵀ."""
    left, right = np.array([1.0, 2.0]), np.array([0.25, 0.125])
    params = lstmx.SimpleRNNParams(np.zeros((1, 2)), np.outer(left, right), np.zeros(2))
    made = lstmx.long_jacobian(lstmx.record(lstmx.SimpleRNN(1, 2), params, np.zeros((steps, 1))))
    expected = np.log(np.linalg.norm(left) * np.linalg.norm(right)) + (steps - 1) * np.log(left @ right)
    np.testing.assert_allclose(made.log_singular_values, [expected, -np.inf], rtol=1e-12)


# ---------------------------------------------------------------------------------------- what any product obeys


@pytest.mark.parametrize("seed", range(3))
def test_all_logs_add_up_to_the_log_determinants(kind, seed):
    history = random_history(kind, length=40 * seed + 1, batch=(2,), hidden=2 + seed, seed=seed)
    logs = np.linalg.slogdet(lstmx.jacobians(history))[1].sum(axis=0)
    assert_close(lstmx.long_jacobian(history).log_singular_values.sum(axis=-1), logs, 1e-10)


def test_a_product_stretches_by_no_more_than_its_parts_do(kind):
    history = three_units(kind)
    whole, first, second = (lstmx.long_jacobian(history, *ends) for ends in ((0, 60), (0, 23), (23, 60)))
    assert whole.log_norm <= first.log_norm + second.log_norm
    assert whole.log_singular_values[-1] >= first.log_singular_values[-1] + second.log_singular_values[-1]


def test_the_change_of_a_state_obeys_the_norm(kind):
    """No tangent pushed through the stretch outgrows the norm, and one direction reaches it."""
    history = three_units(kind)[:7]
    product = functools.reduce(lambda p, jacobian: jacobian @ p, lstmx.jacobians(history))
    made = lstmx.long_jacobian(history)
    np.testing.assert_allclose(made.log_norm, np.log(np.linalg.norm(product, 2)), rtol=1e-12)
    assert_close(made.exponents * 7, made.log_singular_values, 1e-15)
    assert made.log_condition == made.log_singular_values[0] - made.log_singular_values[-1]
    assert repr(made) == f"LongJacobian(7 steps, log_singular_values {made.log_singular_values.shape})"
    assert f"{len(product)} over 7 steps" in str(made)


def test_exponents_of_a_long_stretch_come_near_those_of_the_spectrum():
    history = random_history(lstmx.GRU, length=2000, features=2, hidden=3, seed=1)
    expected = lstmx.lyapunov_spectrum(history, "all", transient=0).exponents
    np.testing.assert_allclose(lstmx.long_jacobian(history).exponents, expected, rtol=0, atol=5e-3)


# ---------------------------------------------------------------------------------------------- faces and sizes


def test_a_batch_is_its_sequences_each_alone(kind):
    history = random_history(kind, length=30, batch=(2, 3), features=2, hidden=3, seed=4)
    made = lstmx.long_jacobian(history)
    assert made.log_norm.shape == made.log_condition.shape == (2, 3)
    assert "medians of 6 sequences" in str(made)
    for index in np.ndindex(2, 3):
        alone = lstmx.long_jacobian(history.sequence(*index))
        assert_close(made.log_singular_values[index], alone.log_singular_values, 1e-11)


@pytest.mark.sample(2)
def test_numpy_and_jax_agree(kind):
    history = three_units(kind)
    made = lstmx.long_jacobian(to("jax", history))
    assert isinstance(made.log_singular_values, np.ndarray)
    np.testing.assert_allclose(
        made.log_singular_values, lstmx.long_jacobian(history).log_singular_values, rtol=1e-12, atol=1e-12
    )


def test_a_history_of_states_alone_has_the_same_values(kind):
    made = [lstmx.long_jacobian(random_history(kind, length=20, keep=keep)) for keep in ("all", "states")]
    assert_close(made[1].log_singular_values, made[0].log_singular_values, 1e-11)


def test_the_values_do_not_depend_on_the_chunks_they_are_worked_in(monkeypatch):
    history = random_history(lstmx.LSTM, length=50, batch=(2,), hidden=3)
    whole = lstmx.long_jacobian(history)
    monkeypatch.setattr("lstmx.dynamics.product.chunk_length", lambda *sizes: 7)
    assert_close(lstmx.long_jacobian(history).log_singular_values, whole.log_singular_values, 1e-11)


def test_float32_keeps_the_values_roughly(kind):
    single, double = (
        lstmx.long_jacobian(random_history(kind, length=40, features=2, hidden=2, seed=2, dtype=dtype))
        for dtype in ("float32", "float64")
    )
    assert single.log_singular_values.dtype == np.float64
    np.testing.assert_allclose(single.log_singular_values, double.log_singular_values, rtol=1e-3, atol=1e-3)


# --------------------------------------------------------------------------------------------- Jacobi rotations


@pytest.mark.parametrize(
    "spans", [[-5000, 0], [0, -1, -2500, -5000], [-5000, -4000, -3, 0, -2, -800, -4999]], ids=len
)
def test_scales_far_apart_are_the_singular_values_of_orthogonal_rows(spans):
    made = log_singular_values(*spread_out(spans))
    np.testing.assert_allclose(made, np.sort(spans)[::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_rows_of_any_scale_have_the_singular_values_of_400_digits(size):
    draws = np.random.default_rng(size)
    rows, scales = draws.standard_normal((size, size)), draws.uniform(-300, 0, size)
    with mpmath.workdps(400):
        matrix = mpmath.matrix([[mpmath.exp(s) * x for x in row] for s, row in zip(scales, rows, strict=True)])
        values = mpmath.svd_r(matrix, compute_uv=False)
        expected = np.sort([float(mpmath.log(value)) for value in values])[::-1]
    np.testing.assert_allclose(log_singular_values(rows, scales), expected, rtol=0, atol=1e-11)


def test_equal_scales_are_an_ordinary_decomposition():
    rows = np.random.default_rng(0).standard_normal((6, 6))
    expected = np.log(np.linalg.svd(rows, compute_uv=False)) - 700.0
    np.testing.assert_allclose(log_singular_values(rows, np.full(6, -700.0)), expected, rtol=0, atol=1e-12)


def test_zero_rows_and_parallel_rows_are_zero_singular_values():
    rows, scales = spread_out([0.0, -100.0, -2000.0, -3000.0])
    scales[1] = -np.inf
    np.testing.assert_allclose(log_singular_values(rows, scales), [0, -2000, -3000, -np.inf], atol=1e-12)
    rows[2] = 0.0
    np.testing.assert_allclose(log_singular_values(rows, scales), [0, -3000, -np.inf, -np.inf], atol=1e-12)
    both = np.stack([rows[0], -rows[0]])
    made = log_singular_values(both[:, :2], np.array([0.0, 0.0]))
    np.testing.assert_allclose(made[0], np.log(np.linalg.norm(both[:, :2])), rtol=1e-12)
    assert made[1] == -np.inf
    assert np.isneginf(log_singular_values(np.zeros((3, 3)), np.zeros(3))).all()


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (5, 2), (0, 8), (7, None)])
def test_steps_that_are_none_are_refused(start, stop):
    history = random_history(lstmx.LSTM, length=7)
    with pytest.raises(ValueError, match=r"expected 0 <= start < stop <= 7, the history's length"):
        lstmx.long_jacobian(history, start, stop)


def test_arguments_of_the_wrong_kind_are_refused():
    history = random_history(lstmx.SimpleRNN)
    with pytest.raises(TypeError, match=r"start is 0\.5; expected an integer"):
        lstmx.long_jacobian(history, 0.5)
    with pytest.raises(ValueError, match="start is -1; expected an integer of at least 0"):
        lstmx.long_jacobian(history, -1)
    with pytest.raises(TypeError, match="history is a ndarray"):
        lstmx.long_jacobian(np.zeros((3, 2, 2)))


def test_within_a_transformation_it_says_that_it_cannot_run():
    cell, params, xs, state = draw_pass(lstmx.LSTM)

    def norm(xs):
        return jnp.sum(lstmx.long_jacobian(lstmx.record(cell, params, xs, state)).log_singular_values)

    with pytest.raises(TypeError, match="cannot run inside a JAX transformation"):
        jax.jit(norm)(jnp.asarray(xs))


def test_numbers_that_are_none_are_refused_with_their_place():
    history = random_history(lstmx.LSTM)
    history.inputs[4, 1] = np.nan
    with pytest.raises(ValueError, match="inputs is nan first at step 4, feature 1"):
        lstmx.long_jacobian(history)
    lstmx.long_jacobian(history, 0, 4)  # the stretch alone is read


def test_a_batch_of_none_is_refused():
    history = random_history(lstmx.SimpleRNN, batch=(0,))
    with pytest.raises(ValueError, match="hold no sequence"):
        lstmx.long_jacobian(history)


@pytest.mark.parametrize("column", [(1, 2, 4), (1, 3, 5, 7)], ids=len)
def test_every_lost_direction_is_minus_infinity(column):
    row = [0.25, 0.125, -0.5, 0.75][: len(column)]
    kernel = np.outer(column, row).astype("float64")
    cell = lstmx.SimpleRNN(1, len(column))
    params = lstmx.SimpleRNNParams(np.zeros((1, len(column))), kernel, np.zeros(len(column)))
    for steps in (1, 2, 5):
        logs = lstmx.long_jacobian(lstmx.record(cell, params, np.zeros((steps, 1)))).log_singular_values
        assert np.isfinite(logs[0])
        assert np.isneginf(logs[1:]).all()
