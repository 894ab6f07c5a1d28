"""What the analyses measure can be differentiated: against central differences, and against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx
from lstmx.scaling import Scaled, unscaled

pytestmark = pytest.mark.slow  # compiling the derivatives of an analysis takes seconds

LENGTH, FEATURES, HIDDEN = 9, 3, 4
LSTM, GRU, RNN = (kind(FEATURES, HIDDEN) for kind in (lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN))
STACK = lstmx.Stack([LSTM, lstmx.GRU(HIDDEN, HIDDEN)])
HOLES = np.ones((LENGTH, 2), bool)
HOLES[[0, 1, 4], 0] = HOLES[[2, -2, -1], 1] = False
PASSES = {
    "LSTM": (LSTM, {}),
    "GRU": (GRU, {}),
    "SimpleRNN": (RNN, {}),
    "stack": (STACK, {}),
    "mask": (LSTM, {"mask": HOLES}),
    "stack, lengths": (STACK, {"lengths": np.array([LENGTH, LENGTH - 3])}),
}


def recorder(name):
    """Parameters, and the history that they make."""
    cell, said = PASSES[name]
    draws = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(draws.normal(0, 0.6, x.shape)), cell.init(0, "float64"))
    xs = jnp.asarray(draws.normal(size=(LENGTH, 2, FEATURES)))
    return params, lambda params: lstmx.record(cell, params, xs, **said)


def check(measure, params, compiled=True, width=1e-4):
    """The derivative of a random sum of what is finite, along a random direction, against differences.

    The differences are central ones of two widths, extrapolated, so that their error is of the fourth order.
    """
    draws = np.random.default_rng(5)
    direction = jax.tree.map(lambda x: jnp.asarray(draws.normal(size=x.shape)), params)

    def numbers(by):
        moved = jax.tree.map(lambda x, u: x + by * u, params, direction)
        floats = [x.ravel() for x in jax.tree.leaves(measure(moved)) if jnp.issubdtype(x.dtype, jnp.floating)]
        return jnp.concatenate(floats)

    here = np.asarray(numbers(0.0))
    weights = jnp.asarray(np.where(np.isfinite(here), draws.normal(size=here.shape), 0.0))
    assert (weights != 0).sum() > 0

    def one(by):
        made = numbers(by)
        return jnp.sum(jnp.where(weights == 0, 0.0, made) * weights)

    found = (jax.jit if compiled else lambda f: f)(one)
    narrow, wide = ((found(h) - found(-h)) / (2 * h) for h in (width, 2 * width))
    expected = (4 * narrow - wide) / 3
    np.testing.assert_allclose(jax.grad(found)(0.0), expected, rtol=1e-8)


@pytest.mark.parametrize("name", PASSES)
def test_every_number_of_a_flow_can_be_differentiated(name):
    params, record = recorder(name)
    check(lambda params: lstmx.gradient_flow(record(params)), params)


def test_a_flow_can_be_differentiated_through_its_loss():
    """A function of the outputs, whose derivative moves with them."""
    params, record = recorder("GRU")
    check(lambda params: lstmx.gradient_flow(record(params), lambda h: (h**3).sum()).log_norm, params)


@pytest.mark.parametrize("options", [{}, {"of": "state"}, {"probes": 3}], ids=str)
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "stack", "mask"])
def test_influence_can_be_differentiated(name, options):
    params, record = recorder(name)
    check(lambda params: lstmx.influence(record(params), **options).log_norms, params)


EVERY = {"transient": 0, "reorthonormalise": 1, "window": 1}


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "stack"])
def test_spectra_can_be_differentiated(name):
    params, record = recorder(name)

    def measure(params):
        found = lstmx.lyapunov_spectrum(record(params), "all", **EVERY)
        return found.exponents, found.per_sequence, found.sum_rule

    check(measure, params, width=1e-5)  # the least exponents bend most


@pytest.mark.parametrize("name", ["mask", "stack, lengths"])
def test_spectra_of_padded_batches_can_be_differentiated_outside_of_jit(name):
    params, record = recorder(name)

    def measure(params):
        found = lstmx.lyapunov_spectrum(record(params), 2, **EVERY)
        return found.exponents, found.per_sequence

    check(measure, params, compiled=False)


def linear(gain, length=30):
    """A linear network h_t = x_t + g W h_{t-1}, recorded."""
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(5, 5)) / np.sqrt(5))
    cell = lstmx.from_step(lambda params, h, x: x + h @ params, jnp.zeros(5), input_size=5)
    return lstmx.record(cell, gain * kernel, jnp.ones((length, 5)))


def test_the_flow_of_a_linear_network_by_its_gain():
    """ln ‖δ_t‖ = (T − t) ln g + a constant, so that its derivative is (T − t) / g."""
    found = jax.jacrev(lambda gain: lstmx.gradient_flow(linear(gain)).log_norm)(0.8)
    np.testing.assert_allclose(found, np.arange(29, -1, -1) / 0.8, atol=1e-11)


def test_the_influence_in_a_linear_network_by_its_gain():
    found = jax.jacrev(lambda gain: lstmx.influence(linear(gain, 8)).log_norms)(0.8)
    lags = np.maximum(np.arange(8)[:, None] - np.arange(8), 0)
    np.testing.assert_allclose(found, lags / 0.8, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", ["all", "norms"])
@pytest.mark.parametrize("gain", [0.05, 20.0])
def test_log_norms_beyond_the_range_of_a_float_have_their_derivatives(gain, outputs, dtype):
    """A SimpleRNN at rest: ln ‖δ_t‖ = (T − t) ln g + ln ‖1‖, far below and above what a float holds."""
    length, size = 400, 3
    nothing = jnp.zeros((1, size), dtype), jnp.zeros(size, dtype)

    def log_norm(gain):
        params = lstmx.SimpleRNNParams(nothing[0], gain * jnp.eye(size, dtype=dtype), nothing[1])
        history = lstmx.record(lstmx.SimpleRNN(1, size), params, jnp.zeros((length, 1), dtype))
        return lstmx.gradient_flow(history, outputs=outputs).log_norm[0]

    value, slope = jax.value_and_grad(log_norm)(jnp.asarray(gain, dtype))
    rounding = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(value, 399 * np.log(gain) + 0.5 * np.log(size), rtol=rounding)
    np.testing.assert_allclose(slope, 399 / gain, rtol=rounding)


def test_a_zero_in_scale_has_the_derivative_of_its_scale_and_infinity_none():
    value = jnp.asarray([0.0, 1.0, -1.0])
    for exponent, expected in ((3, 8.0), (-3, 0.125), (1500, 0.0), (5000, 0.0)):
        slopes = jax.grad(lambda v, e=exponent: unscaled(Scaled(v, jnp.int32(e))).sum())(value)
        np.testing.assert_array_equal(slopes, expected)
    np.testing.assert_array_equal(unscaled(Scaled(value, jnp.int32(5000))), [0, np.inf, -np.inf])


def test_exact_zeros_leave_the_derivatives_of_the_others():
    """A ReLU network that is dead at one step: before it nothing arrives, behind it everything is as it was."""
    cell = lstmx.SimpleRNN(1, 2, activation="relu")
    xs = jnp.asarray([1.0, 1.0, -50.0, 1.0, 1.0])[:, None]

    def flow(gain):
        params = lstmx.SimpleRNNParams(jnp.ones((1, 2)), gain * jnp.eye(2), jnp.zeros(2))
        return lstmx.gradient_flow(lstmx.record(cell, params, xs))

    assert np.isneginf(flow(0.5).log_norm[:2]).all()
    slopes = jax.jacrev(flow)(0.5)
    np.testing.assert_allclose(slopes.log_norm, [0, 0, 4, 2, 0], atol=1e-12)
    for field in dataclasses.fields(slopes):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(getattr(slopes, field.name))), field.name
