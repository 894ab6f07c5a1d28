"""The SLSTM: stabilised against plain, the gates that act, its empty state, and what its four states mean."""

import family
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from reference import assert_close, assert_same, linear_step, logistic, to

import lstmx

ACTIVATIONS = ["sigmoid", "exponential"]
each = pytest.mark.parametrize("activation", ACTIVATIONS)


def drawn(activation="sigmoid", batch=(), length=12, hidden=4, dtype="float64", seed=0):
    cell = lstmx.SLSTM(3, hidden, forget_activation=activation)
    params, state, xs, draws = family.draw(cell, batch, length=length, dtype=dtype, seed=seed)
    return cell, params, xs, state, draws


def still(bias, cell=None):
    """A cell of two units whose weights are zero, and its parameters: a bias for each of i, f, z, o."""
    cell = lstmx.SLSTM(1, 2) if cell is None else cell
    zero = jax.tree.map(np.zeros_like, cell.init(np.random.default_rng(0), "float64"))
    return cell, zero._replace(bias=np.repeat(np.array(bias, float), 2))


def raw(cell, params, xs):
    """Outputs and contents C, N of the recursion without a stabiliser, from nothing."""
    h, c, n, rows = np.zeros(cell.hidden_size), 0.0, 0.0, []
    for x in xs:
        i, f, z, o = np.split(x @ params.input_kernel + h @ params.recurrent_kernel + params.bias, 4)
        f = logistic(f) if cell.forget_activation == "sigmoid" else np.exp(f)
        c, n = f * c + np.exp(i) * np.tanh(z), f * n + np.exp(i)
        h = logistic(o) * c / n
        rows.append((h, c, n))
    return (np.array(row) for row in zip(*rows, strict=True))


# ----------------------------------------------------------------------------------------------- equations


@each
def test_the_stabiliser_leaves_the_plain_recursion_as_it_is(activation):
    cell, params, xs, _, _ = drawn(activation, length=30)
    states = lstmx.record(cell, params, xs).states
    scale = np.exp(states.stabiliser)
    h, c, n = raw(cell, params, xs)
    np.testing.assert_allclose(states.hidden, h, atol=1e-14)
    np.testing.assert_allclose(states.cell * scale, c, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(states.normaliser * scale, n, rtol=1e-12)


@pytest.mark.parametrize("shift", [800.0, -800.0])
@each
def test_a_shift_of_the_input_gate_leaves_the_outputs(activation, shift, library):
    cell, params, xs, _, _ = drawn(activation)
    shifted = params._replace(bias=params.bias + np.repeat([shift, 0, 0, 0], 4))
    expected = lstmx.run(cell, *to(library, (params, xs)))[0]
    np.testing.assert_allclose(lstmx.run(cell, *to(library, (shifted, xs)))[0], expected, atol=1e-12)
    single = jax.tree.map(lambda x: x.astype("float32"), (shifted, xs))
    np.testing.assert_allclose(lstmx.run(cell, *to(library, single))[0], expected, atol=1e-2)


@each
def test_a_forget_gate_over_1_overflows_nothing(activation):
    cell, params = still([0.0, 30.0, 0.5, 0.0], lstmx.SLSTM(1, 2, forget_activation=activation))
    params = jax.tree.map(lambda x: x.astype("float32"), params)
    history = lstmx.record(cell, params, np.zeros((2000, 1), "float32"))
    np.testing.assert_allclose(history.hidden_state, 0.5 * np.tanh(0.5), rtol=1e-4)
    assert all(np.isfinite(field).all() for field in history.states)


# ------------------------------------------------------------------------------------------ the gates that act


@each
def test_the_gates_say_how_the_memory_moves(activation):
    cell, params, xs, state, _ = drawn(activation, (2,))
    history = lstmx.record(cell, params, xs, state)
    before, after = (s.cell / s.normaliser for s in (history.before, history.states))
    moved = history.forget_gate * before + history.input_gate * history.candidate
    np.testing.assert_allclose(moved, after, atol=1e-15)
    np.testing.assert_allclose(history.forget_gate + history.input_gate, 1, atol=1e-15)
    np.testing.assert_allclose(history.hidden_state, history.output_gate * after, rtol=1e-13)


def test_without_weights_the_normaliser_is_a_geometric_series():
    cell, params = still([3.0, 1.0, 0.5, 0.2])
    history = lstmx.record(cell, params, np.zeros((40, 1)))
    f, t = logistic(1.0), np.tile(np.arange(1, 41)[:, None], 2)
    np.testing.assert_allclose(history.hidden_state, logistic(0.2) * np.tanh(0.5), rtol=1e-14)
    np.testing.assert_allclose(history.states.normaliser, (1 - f**t) / (1 - f), rtol=1e-13)
    np.testing.assert_allclose(history.states.stabiliser, 3)
    np.testing.assert_allclose(history.forget_gate, 1 - (1 - f) / (1 - f**t), atol=1e-14)
    assert np.isneginf(history.log_forget[0]).all()
    assert np.isneginf(lstmx.highway(history)).all()
    # Over steps 1, ..., 39 the logs telescope: f° = f (1 − f^t) / (1 − f^(t+1)).
    whole = 39 * np.log(f) + np.log1p(-f) - np.log1p(-(f**40))
    np.testing.assert_allclose(lstmx.highway(history, 1), whole, rtol=1e-12)
    np.testing.assert_allclose(lstmx.gate_statistics(history).timescale, -39 / whole, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each
def test_logs_of_gates_that_round_to_0_or_1_are_exact(activation, dtype):
    mpmath.mp.dps = 60
    cell = lstmx.SLSTM(1, 4, forget_activation=activation)
    into, forget = np.array([-60.0, 60.0, -20.0, 3.0]), np.array([-1.0, 2.0, -30.0, 0.5])
    n, m = np.array([1.0, 3.0, 8.0, 2.0]), np.array([0.0, 1.0, 40.0, -2.0])
    a = np.concatenate([into, forget, np.zeros(8)]).astype(dtype)
    before = cell.state_type(*(x.astype(dtype) for x in (0 * n, 0 * n, n, m)))
    kept = []
    for i, f, n_k, m_k in zip(into, forget, n, m, strict=True):
        share = mpmath.exp(mpmath.mpf(f)) if activation == "exponential" else 1 / (1 + mpmath.exp(-mpmath.mpf(f)))
        old = share * mpmath.exp(mpmath.mpf(m_k)) * mpmath.mpf(n_k)
        kept.append(float(mpmath.log(old / (old + mpmath.exp(mpmath.mpf(i))))))
    np.testing.assert_allclose(cell.log_retention(before, a), kept, rtol=100 * np.finfo(dtype).eps)


@pytest.mark.slow
def test_statistics_and_excerpts_read_the_gates_that_act(library):
    cell, params, xs, _, _ = drawn("sigmoid", (2,), length=40)
    given = to(library, (params, xs))
    history = lstmx.record(cell, *given)
    statistics = lstmx.gate_statistics(history)
    logs = np.asarray(history.log_forget)[1:].mean(axis=(0, 1))
    np.testing.assert_allclose(
        statistics["forget_gate"].mean, np.mean(history.forget_gate, axis=(0, 1)), rtol=1e-13
    )
    np.testing.assert_allclose(statistics.timescale, -1 / logs, rtol=1e-12)
    assert (statistics.timescale_arithmetic >= statistics.timescale).all()
    assert_close(lstmx.summarise(cell, *given), statistics, 1e-12)
    for every in (1, 3):
        excerpt = lstmx.excerpt(cell, *given, every=every, fields=["forget_gate", "normaliser_state"])
        np.testing.assert_allclose(excerpt.forget_gate, history.forget_gate[excerpt.steps], atol=1e-14)
        np.testing.assert_allclose(excerpt.normaliser_state, history.states.normaliser[excerpt.steps], rtol=1e-13)


def test_a_single_step_from_nothing_has_no_time_scale():
    cell, params = still([0.0, 1.0, 0.5, 0.0])
    assert np.isnan(lstmx.gate_statistics(lstmx.record(cell, params, np.zeros((1, 1)))).timescale).all()


def test_the_gate_kernel_weighs_candidates_into_the_output():
    cell, params, xs, _, _ = drawn(hidden=1)
    history = lstmx.record(cell, params, xs)
    kept, taken = history.forget_gate[:, 0], history.input_gate[:, 0]
    weights = np.array([taken[s] * kept[s + 1 :].prod() for s in range(12)])
    np.testing.assert_allclose(lstmx.gate_kernel(history, 11)[0], weights / weights.sum(), rtol=1e-12)
    output = history.output_gate[-1] * (weights @ history.candidate[:, 0])
    np.testing.assert_allclose(history.hidden_state[-1], output, rtol=1e-12)


@pytest.mark.slow
def test_a_reset_empties_the_state(library):
    cell, params, xs, _, _ = drawn("exponential", (2,), length=10)
    resets = np.zeros((10, 2), bool)
    resets[6] = True
    history = lstmx.record(cell, *to(library, (params, xs)), resets=to(library, resets))
    parts = [lstmx.record(cell, *to(library, (params, part))) for part in (xs[:6], xs[6:])]
    for name in ("hidden_state", "forget_gate", "log_forget"):
        expected = np.concatenate([np.asarray(getattr(part, name)) for part in parts])
        np.testing.assert_allclose(getattr(history, name), expected, atol=1e-13)
    assert np.isfinite(lstmx.gate_statistics(history).timescale).all()


# ----------------------------------------------------------------------------------------------- derivatives


@pytest.mark.sample(1)
@pytest.mark.parametrize("bias", [0.0, -800.0, 800.0])
@each
def test_the_derivative_from_an_empty_state_is_the_one_of_autodiff(activation, bias):
    cell, params, xs, _, draws = drawn(activation, length=1)
    params = params._replace(bias=params.bias + np.repeat([bias, 0, 0, 0], 4))
    zero = cell.initial_state(params)
    step = linear_step(cell, params, zero, xs[0])[2]
    v = cell.state_type(*(draws.normal(size=4) for _ in zero))
    back, d_a = step.vjp(cell.pack(v))
    found = step.parameter_vjp(d_a), cell.unpack(back)
    pull = jax.vjp(lambda params, state: cell.step(params, state, jnp.asarray(xs[0]))[0], params, zero)[1]
    assert_close(found, pull(jax.tree.map(jnp.asarray, v)), 1e-13)
    assert_close(cell.unpack(step.jvp(cell.pack(v))), _forward(cell, params, zero, xs[0], v), 1e-13)


def _forward(cell, params, state, x, tangent):
    return jax.jvp(lambda state: cell.step(params, state, jnp.asarray(x))[0], (state,), (tangent,))[1]


@each
def test_no_output_shows_a_shift_of_the_stabiliser(activation):
    cell, params, xs, state, draws = drawn(activation)
    history = lstmx.record(cell, params, xs, state)

    def shift(state):
        return np.concatenate([np.zeros(4), -state.cell, -state.normaliser, np.ones(4)])

    matrices, before, after = lstmx.jacobians(history), history.before, history.states
    slopes = cell.linearise(params, before, history.preactivations, after)
    for t, matrix in enumerate(matrices):
        start, end = (jax.tree.map(lambda x, t=t: x[t], states) for states in (before, after))
        by_old = np.tile(slopes.stabiliser_carry[t], 4)
        np.testing.assert_allclose(matrix @ shift(start), by_old * shift(end), atol=1e-13)
    initial = lstmx.backward(history, draws.normal(size=(12, 4))).initial
    along = initial.stabiliser - state.cell * initial.cell - state.normaliser * initial.normaliser
    np.testing.assert_allclose(along, 0, atol=1e-14)


def test_the_gradient_s_highway_is_that_of_the_gates_in_other_units():
    cell, params, xs, state, _ = drawn(hidden=1, length=200)
    history = lstmx.record(cell, params, xs, state)
    flow = lstmx.gradient_flow(history)
    n, logs = history.states.normaliser[:, 0], history.log_forget[:, 0]
    whole = np.array([logs[s + 1 :].sum() + np.log(n[-1] / n[s]) for s in range(200)])
    np.testing.assert_allclose(flow.log_highway - flow.log_highway[-1], whole, atol=1e-10)
    # Rounding along the shift of the stabiliser would stand out over 200 steps if it were not forgotten, too.
    assert flow.log_norm[0] < flow.log_norm[-1] - 50


@each
def test_path_orders_add_up_and_the_carousel_is_of_order_0(activation):
    cell, params, xs, state, _ = drawn(activation, length=5, hidden=2)
    history = lstmx.record(cell, params, xs, state)
    spectrum = lstmx.path_spectrum(history, max_order=2, matrix=True)
    product = np.linalg.multi_dot(lstmx.jacobians(history)[::-1])
    np.testing.assert_allclose(spectrum.matrices.sum(axis=0), product, atol=1e-12)
    slopes = cell.linearise(params, history.before, history.preactivations, history.states)
    carousel = slopes.carry.prod(axis=0)
    np.testing.assert_allclose(spectrum.matrices[0][2:4, 2:4], np.diag(carousel), atol=1e-14)


# -------------------------------------------------------------------------------------------------- dynamics


@pytest.mark.slow
def test_each_unit_has_an_exponent_of_minus_infinity():
    cell, params, xs, _, _ = drawn(length=400, hidden=2)
    history = lstmx.record(cell, params, xs)
    first = lstmx.lyapunov_spectrum(history, 6).exponents
    assert np.isfinite(first).all()
    with pytest.warns(RuntimeWarning, match="a single step is too much for float64"):
        every = lstmx.lyapunov_spectrum(history, "all", check=False).exponents
    assert np.isneginf(every[6:]).all()
    np.testing.assert_allclose(every[:6], first, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_fixed_points_rest_where_the_normaliser_does(library):
    cell, params, xs, _, _ = drawn(length=30)
    params, xs = to(library, (params, 0.3 * xs))
    states = lstmx.record(cell, params, xs).states
    with jax.numpy_dtype_promotion("standard"):  # as optax needs it
        points = lstmx.fixed_points(cell, params, xs[0], jax.tree.map(lambda x: x[::10], states))
    assert points.index_sum == 1
    point = jax.tree.map(lambda x: np.asarray(x)[0], points.fixed.states)
    a = np.asarray(point.hidden @ params.recurrent_kernel + xs[0] @ params.input_kernel + params.bias)
    i, f, z, o = np.split(a, 4)
    np.testing.assert_allclose(point.normaliser, 1 / (1 - logistic(f)), rtol=1e-8)
    np.testing.assert_allclose(point.stabiliser, i, rtol=1e-8)
    np.testing.assert_allclose(point.hidden, logistic(o) * np.tanh(z), rtol=1e-8)


@each
def test_at_the_critical_gain_the_resting_state_has_an_eigenvalue_of_one(activation):
    cell = lstmx.SLSTM(1, 4, forget_activation=activation)
    gain = lstmx.critical_gain(cell, output_gate=0.3)
    np.testing.assert_allclose(gain, 1 + np.exp(-0.3), rtol=1e-14)
    params = cell.init(np.random.default_rng(0), "float64")
    kernel = np.zeros((4, 16))
    kernel[:, 8:12] = gain * np.eye(4)
    params = params._replace(recurrent_kernel=kernel, bias=params.bias + np.repeat([0, 0, 0, 0.3], 4))
    zero = np.zeros(4)
    rest = cell.state_type(zero, zero, zero + 1 / (1 - logistic(1.0)), zero)
    history = lstmx.record(cell, params, np.zeros((1, 1)), rest)
    assert_close(history.final, rest, 1e-14)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(lstmx.jacobians(history)[0])).max(), 1, rtol=1e-12)


# -------------------------------------------------------------------------------------------- initial values


@each
def test_schemes_set_what_the_gate_comes_to(activation):
    cell = lstmx.SLSTM(1, 3, forget_bias=2.0, forget_activation=activation)
    for scheme, logit in (((), 2.0), (lstmx.schemes.unit_forget_bias(3.0), 3.0)):
        params = cell.init(np.random.default_rng(0), "float64", scheme=scheme)
        history = lstmx.record(cell, params._replace(recurrent_kernel=np.zeros((3, 12))), np.zeros((900, 1)))
        np.testing.assert_allclose(history.forget_gate[-1], logistic(logit), rtol=1e-9)


# ---------------------------------------------------------------------------------------------------- errors


def test_what_has_no_meaning_is_refused():
    cell, params, xs, _, _ = drawn()
    with pytest.raises(ValueError, match="forget_activation is 'exp'; expected one of 'sigmoid', 'exponential'"):
        lstmx.SLSTM(3, 4, forget_activation="exp")
    with pytest.raises(ValueError, match="c, n and m mean something only together"):
        lstmx.Zoneout(cell)
    with pytest.raises(TypeError, match=r"gates of a SLSTM read the state before: cell.readings\(before, a\)"):
        cell.gates(xs)
    with pytest.raises(ValueError, match=r"those of SLSTM.* read the state too"):
        lstmx.run(cell, params, xs, parallel=True)


def test_pieces_continue_the_whole():
    cell, params, xs, _, _ = drawn()
    whole = lstmx.record(cell, params, xs)
    rest = lstmx.record(cell, params, xs[5:], whole[:5].final)
    assert_same(rest.forget_gate, whole.forget_gate[5:])
