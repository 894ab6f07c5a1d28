"""The SimpleRNN with ReLU, through every face and analysis that a cell has."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, draw_params, draw_state, to

import lstmx
import lstmx.plot

CELL = lstmx.SimpleRNN(3, 4, activation="relu")


def drawn(length=9, batch=(), scale=0.5, seed=0):
    draws = np.random.default_rng(seed)
    return (
        draw_params(CELL, draws, scale=scale),
        draws.normal(size=(length, *batch, 3)),
        draw_state(CELL, draws, batch),
    )


def outputs_of(params, xs, state):
    """The equations, a step at a time."""
    made, h = [], state.hidden
    for x in xs:
        h = jnp.maximum(x @ params.input_kernel + h @ params.recurrent_kernel + params.bias, 0.0)
        made.append(h)
    return jnp.stack(made)


@pytest.mark.sample(3)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_the_outputs_are_those_of_the_equations(library, batch):
    params, xs, state = drawn(batch=batch)
    outputs, final = lstmx.run(CELL, *to(library, (params, xs, state)))
    assert_close(outputs, np.asarray(outputs_of(params, xs, state)), 1e-14)
    assert (np.asarray(outputs) == 0).any()
    assert (np.asarray(outputs) > 0).any()
    history = lstmx.record(CELL, *to(library, (params, xs, state)))
    assert_close(history.candidate, outputs, 1e-14)
    assert_close(history.final, final, 1e-14)


@pytest.mark.slow
def test_gradients_are_those_of_autodiff():
    given = drawn(batch=(2,))
    cotangent = np.random.default_rng(1).normal(size=(9, 2, 4))
    expected = jax.grad(lambda *a: (outputs_of(*a) * cotangent).sum(), argnums=(0, 1, 2))(*to("jax", given))
    for differentiation in ("pullback", "autodiff"):

        def loss(*arguments, how=differentiation):
            return (lstmx.run(CELL, *arguments, differentiation=how)[0] * cotangent).sum()

        assert_close(jax.grad(loss, argnums=(0, 1, 2))(*to("jax", given)), expected, 1e-12)
    in_numpy = lstmx.backward(lstmx.record(CELL, *given), cotangent)
    assert_close((in_numpy.parameters, in_numpy.inputs, in_numpy.initial), expected, 1e-12)


@pytest.mark.sample(1)
def test_tangents_and_jacobians_are_those_of_autodiff(library):
    params, xs, state = to(library, drawn())
    history = lstmx.record(CELL, params, xs, state)
    before = history.before.hidden

    def step(h, x):
        return CELL.step(to("jax", params), lstmx.SimpleRNNState(h), x)[0].hidden

    by_state = jax.vmap(jax.jacfwd(step))(jnp.asarray(before), jnp.asarray(xs))
    by_input = jax.vmap(jax.jacfwd(step, argnums=1))(jnp.asarray(before), jnp.asarray(xs))
    np.testing.assert_allclose(lstmx.jacobians(history), by_state, rtol=0, atol=1e-14)
    np.testing.assert_allclose(lstmx.input_jacobians(history), by_input, rtol=0, atol=1e-14)


def test_a_flow_ends_where_all_units_are_dead():
    """A strongly negative input at step 5 closes every unit: nothing earlier reaches the end."""
    params, xs, state = drawn()
    params = params._replace(input_kernel=np.abs(params.input_kernel), bias=np.ones(4))
    xs = np.abs(xs)
    xs[5] = -1000
    flow = lstmx.gradient_flow(lstmx.record(CELL, params, xs, state))
    assert np.isneginf(flow.log_norm[:5]).all()
    assert np.isfinite(flow.log_norm[5:]).all()


@pytest.mark.slow
def test_the_identity_network_keeps_a_positive_state(library):
    """The IRNN at rest: J = I, all exponents 0, on a state that is positive."""
    key = np.random.default_rng(0) if library == "numpy" else jax.random.key(0)
    params = CELL.init(key, "float64", scheme=lstmx.schemes.identity())
    state = to(library, lstmx.SimpleRNNState(np.array([1.0, 2.0, 0.5, 3.0])))
    history = lstmx.record(CELL, params, to(library, np.zeros((40, 3))), state)
    assert_close(history.final, state, 0)
    np.testing.assert_allclose(lstmx.lyapunov_spectrum(history, "all").exponents, 0, atol=1e-14)


def test_dead_units_have_exponents_of_minus_infinity_and_live_ones_those_of_their_weights():
    """Two units live with weights 0.9 and 0.8, two are dead."""
    params = lstmx.SimpleRNNParams(
        np.zeros((3, 4)), np.diag([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, -1.0, -1.0])
    )
    spectrum = lstmx.autonomous_spectrum(CELL, params, steps=600, count="all", transient=400)
    np.testing.assert_allclose(spectrum.exponents[:2], np.log([0.9, 0.8]), atol=1e-12)
    assert np.isneginf(spectrum.exponents[2:]).all()


@pytest.mark.sample(1)
def test_the_fixed_point_of_a_live_network_solves_its_linear_equation(library):
    draws = np.random.default_rng(2)
    kernel, bias = 0.2 * np.abs(draws.normal(size=(4, 4))), np.abs(draws.normal(size=4))
    params = lstmx.SimpleRNNParams(np.zeros((3, 4)), kernel, bias)
    candidates = lstmx.SimpleRNNState(np.abs(draws.normal(size=(12, 4))))
    with jax.numpy_dtype_promotion("standard"):  # optax adds a Python float to an integer count
        points = lstmx.fixed_points(CELL, *to(library, (params, np.zeros(3), candidates)))
    np.testing.assert_allclose(points.points.hidden, [np.linalg.solve(np.eye(4) - kernel.T, bias)], rtol=1e-10)
    assert "since the state has no bound" in points.summary()
    assert "WARNING" not in points.summary()


@pytest.mark.slow
def test_every_report_takes_it():
    history = lstmx.record(CELL, *drawn(length=120))
    report = lstmx.memory_report(history, lags=20)
    for figure in (lstmx.plot.memory(report), lstmx.plot.dynamics(history)):
        figure.savefig(io.BytesIO(), format="png")
    top = float(history.hidden_state.max())
    assert any(image.get_clim() == (0, top) for ax in figure.axes for image in ax.get_images())


def test_its_option_is_saved_and_loaded(tmp_path):
    lstmx.save(tmp_path / "relu.safetensors", CELL, drawn()[0])
    cell, params = lstmx.load(tmp_path / "relu.safetensors", "numpy")
    assert cell == CELL
    assert_close(params, drawn()[0], 0)


def test_other_words_and_a_gain_are_refused():
    with pytest.raises(ValueError, match="activation is 'gelu'; expected one of 'tanh', 'relu'"):
        lstmx.SimpleRNN(3, 4, activation="gelu")
    with pytest.raises(ValueError, match="ReLU has no derivative at zero"):
        lstmx.critical_gain(CELL)
    assert dataclasses.replace(CELL, activation="tanh").bounded
