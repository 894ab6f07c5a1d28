"""`lyapunov_spectrum` of recorded passes, `autonomous_spectrum`, and what published recipes give instead."""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, draw_pass, draw_state, lcg, lcg_params, random_history, to

import lstmx

# ------------------------------------------------------------------------------------------------------ networks


@functools.cache
def driven(gain=1.0, forget_bias=1.0, steps=3000, transient=500):
    """32 units driven by 8 Gaussian inputs, drawn in the order in which the check values were."""
    draws, hidden, features = np.random.default_rng(0), 32, 8
    U = gain * draws.standard_normal((4 * hidden, hidden)) / np.sqrt(hidden)
    W = draws.standard_normal((4 * hidden, features)) / np.sqrt(features)
    initial = [draws.standard_normal(hidden) * 0.1 for _ in range(2)]
    draws.standard_normal((2 * hidden, 2 * hidden))  # the frames of the reference
    draws.standard_normal((hidden, hidden))
    xs = [draws.standard_normal((transient + 1, features))]
    draws.standard_normal(2 * hidden)  # its perturbation
    xs.append(draws.standard_normal((steps - 1, features)))
    params = lstmx.LSTMParams(W.T.copy(), U.T.copy(), np.repeat([0.0, forget_bias, 0.0, 0.0], hidden))
    return lstmx.record(lstmx.LSTM(features, hidden), params, np.concatenate(xs), lstmx.LSTMState(*initial))


def at_rest(kernel, steps, library="numpy"):
    """A SimpleRNN whose state stays zero, so that each Jacobian is the kernel's transpose."""
    size = len(kernel)
    params = lstmx.SimpleRNNParams(np.zeros((1, size)), kernel, np.zeros(size))
    return lstmx.record(lstmx.SimpleRNN(1, size), *to(library, (params, np.zeros((steps, 1)))))


def joint(state):
    return np.concatenate([np.asarray(x) for x in state], axis=-1)


def plain_exponents(matrices, count, transient):
    """Benettin's loop, with a QR decomposition at every step and a frame of its own."""
    frame = np.linalg.qr(np.random.default_rng(77).standard_normal((matrices.shape[-1], count)))[0]
    logs = []
    for matrix in matrices:
        frame, r = np.linalg.qr(matrix @ frame)
        logs.append(np.log(np.abs(np.diag(r))))
    return np.mean(logs[transient:], axis=0)


# ---------------------------------------------------------------------------------------------- published values


@pytest.mark.sample(1)
@pytest.mark.parametrize("forget_bias", [0.0, 3.0])
def test_without_weights_the_forget_gate_is_the_spectrum(library, forget_bias):
    """V05: half of the exponents are the forget gate's log, the others −inf, and nothing warns."""
    params = lstmx.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.repeat([0.0, forget_bias, 0.0, 0.0], 3))
    xs = np.random.default_rng(0).normal(size=(200, 2))
    spectrum = lstmx.lyapunov_spectrum(lstmx.record(lstmx.LSTM(2, 3), *to(library, (params, xs))), "all")
    expected = -np.logaddexp(0, -forget_bias)
    np.testing.assert_allclose(spectrum.exponents[:3], expected, rtol=1e-12)
    assert np.isneginf(spectrum.exponents[3:]).all()
    assert not np.isnan(spectrum.local).any()
    assert math.isnan(spectrum.sum_rule.discrepancy)
    np.testing.assert_allclose(spectrum.timescale, -1 / expected, rtol=1e-12)
    assert "3 exponents are −inf" in str(spectrum)


@pytest.mark.slow
def test_a_linear_network_has_the_logs_of_its_eigenvalues():
    """V14: a complex pair comes within O(1 / T)."""
    kernel = lcg((6, 6), 2, 0.6).T
    spectrum = lstmx.lyapunov_spectrum(at_rest(kernel, 20_000), "all", transient=2000)
    expected = [-0.50130682, -0.60358341, -0.60358341, -0.76283387, -0.76283387, -1.96631546]
    np.testing.assert_allclose(spectrum.exponents, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(spectrum.exponents[[0, 5]], np.array(expected)[[0, 5]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(spectrum.exponents.sum(), -5.200456817, rtol=0, atol=6e-10)
    assert spectrum.sum_rule.discrepancy < 1e-10


def test_the_check_net_has_the_known_log_determinants():
    """V09."""
    cell, params = lcg_params(lstmx.LSTM, 3, 5, 1.0, forget_bias=1.0)
    history = lstmx.record(cell, params, lcg((40, 3), 5, 1.5))
    rule = lstmx.lyapunov_spectrum(history, "all", transient=0).sum_rule
    for value in (rule.exponents, rule.log_determinant, rule.closed_form):
        np.testing.assert_allclose(40 * value, -589.7663995087, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_driven_lstm_has_the_known_spectrum():
    """V29: the joint state's λ₁, and the sum of all exponents against the sum rule."""
    spectrum = lstmx.lyapunov_spectrum(driven(), "all", transient=500)
    np.testing.assert_allclose(spectrum.exponents[0], -0.19178, rtol=0, atol=0.005)
    np.testing.assert_allclose(spectrum.exponents.sum(), -125.96527, rtol=0, atol=5.1e-6)
    assert spectrum.sum_rule.discrepancy < 1e-9
    assert spectrum.stationary
    assert spectrum.kaplan_yorke == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "forget_bias", "first", "dimension", "errors"),
    [(1.0, 5.0, 0.0034, 3.5, (0.004, 0.2)), (4.0, 1.0, 0.0366, 3.05, (0.01, 0.5))],
)
def test_a_driven_lstm_turns_chaotic_by_its_bias_or_its_gain(gain, forget_bias, first, dimension, errors):
    """V30. At a gain of 4 rounding decides which trajectory of the attractor a machine follows.

    From six neighbouring starts λ₁ had a standard deviation of 0.0024 and the dimension one of 0.13; the known
    values are of one trajectory. Its difference from the mean of four may be three standard deviations.
    """
    history = driven(gain, forget_bias)
    found = []
    for k in range(4 if gain > 1 else 1):
        state = lstmx.LSTMState(*(x * (1 + 1e-9 * k) for x in history.initial))
        pass_ = lstmx.record(history.cell, history.params, history.inputs, state)
        spectrum = lstmx.lyapunov_spectrum(pass_, 12, transient=500)
        found.append((spectrum.exponents[0], spectrum.kaplan_yorke))
        positive = spectrum.exponents[spectrum.exponents > 0]
        np.testing.assert_allclose(spectrum.entropy_rate, positive.sum(), rtol=1e-12)
    assert (np.abs(np.mean(found, axis=0) - (first, dimension)) <= errors).all()


@pytest.mark.slow
def test_the_hidden_state_alone_gives_another_number():
    """V29: ∂h_t/∂h_{t-1} at fixed c_{t-1} says −1.639, eight times too fast; the audit says so."""
    spectrum = lstmx.lyapunov_spectrum(driven(), 1, transient=500, audit=True)
    np.testing.assert_allclose(spectrum.audit.hidden_only, -1.639, rtol=0, atol=0.005)
    np.testing.assert_allclose(spectrum.audit.transposed_base2, -1.6382 / np.log(2), rtol=0, atol=0.007)
    assert spectrum.audit.batch_mean is None
    assert "published recipes, for comparison only" in str(spectrum)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "first", "batch_mean", "tolerance"),
    [(1.0, -0.1920, -0.1980, 1e-3), (4.0, 0.0253, -0.0374, 0.01)],
)
def test_a_mean_of_jacobians_over_the_batch_has_another_spectrum(gain, first, batch_mean, tolerance):
    """T4: the batch mean calls a chaotic network stable."""
    params, xs = driven(gain).params, np.random.default_rng(1).standard_normal((2300, 2, 8))
    history = lstmx.record(driven(gain).cell, params, xs)
    spectrum = lstmx.lyapunov_spectrum(history, 1, transient=300, audit=True)
    np.testing.assert_allclose(spectrum.exponents, first, rtol=0, atol=tolerance)
    np.testing.assert_allclose(spectrum.audit.batch_mean, batch_mean, rtol=0, atol=tolerance)
    assert "from means over the batch" in str(spectrum)


@pytest.mark.slow
@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_exponents_can_be_differentiated_by_the_gain(derivative):
    """V43: ∂λ_i/∂g = 1/g for a linear network."""
    kernel = jnp.asarray(lcg((6, 6), 2, 0.6).T)

    @jax.jit
    def exponents(gain):
        return lstmx.lyapunov_spectrum(at_rest(gain * kernel, 40, "jax"), 3).exponents

    np.testing.assert_allclose(derivative(exponents)(0.8), 1.25, rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------------- independent loops


def test_two_nearby_trajectories_part_at_the_first_exponent():
    """A difference of 1e-8, scaled back to it at every step."""
    history = driven()
    cell, params, size, logs = history.cell, history.params, 1e-8, []
    offset = np.random.default_rng(3).standard_normal(64)
    before = history.before
    for t, x in enumerate(history.inputs):
        offset *= size / np.linalg.norm(offset)
        near = lstmx.LSTMState(before.hidden[t] + offset[:32], before.cell[t] + offset[32:])
        offset = joint(cell.step(params, near, x)[0]) - joint(field[t] for field in history.states)
        logs.append(np.log(np.linalg.norm(offset) / size))
    spectrum = lstmx.lyapunov_spectrum(history, 1, transient=500)
    np.testing.assert_allclose(spectrum.exponents[0], np.mean(logs[500:]), rtol=0, atol=3e-3)


@functools.cache
def long_pass(kind, length=600):
    """A pass long enough for two frames to become one, and its Jacobians by autodiff of the step."""
    history = random_history(kind, length=length, features=2, hidden=3, seed=1)
    cell, size = history.cell, history.cell.hidden_size

    def one(flat, x):
        fields = (flat[k : k + size] for k in range(0, len(flat), size))
        return jnp.concatenate(cell.step(history.params, cell.state_type(*fields), x)[0])

    return history, np.asarray(jax.jit(jax.vmap(jax.jacfwd(one)))(joint(history.before), history.inputs))


@pytest.mark.sample(1)
def test_exponents_are_those_of_a_plain_loop_over_jacobians_by_autodiff(kind):
    history, matrices = long_pass(kind)
    spectrum = lstmx.lyapunov_spectrum(history, "all", transient=400)
    assert_close(spectrum.exponents, plain_exponents(matrices, len(spectrum.exponents), 400), 1e-8)


@pytest.mark.sample(1)
def test_given_jacobians_have_the_spectrum_of_the_pass(kind):
    history, matrices = long_pass(kind)
    made, expected = (lstmx.lyapunov_spectrum(x, "all", reorthonormalise=2) for x in (matrices, history))
    assert_close(made.exponents, expected.exponents, 1e-9)
    assert_close(made.sum_rule.log_determinant, expected.sum_rule.log_determinant, 1e-12)


@pytest.mark.slow
def test_the_audit_is_made_of_plain_loops_over_the_hidden_block(kind):
    history, matrices = long_pass(kind)
    audit = lstmx.lyapunov_spectrum(history, 2, transient=400, audit=True).audit
    hidden = matrices[:, :3, :3]
    assert_close(audit.hidden_only, plain_exponents(hidden, 2, 400), 1e-8)
    assert_close(audit.transposed_base2, plain_exponents(hidden.swapaxes(1, 2), 2, 400) / np.log(2), 1e-8)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.SimpleRNN])
def test_without_a_cell_state_the_hidden_block_is_the_whole(kind):
    spectrum = lstmx.lyapunov_spectrum(long_pass(kind)[0], 2, audit=True)
    assert_close(spectrum.audit.hidden_only, spectrum.exponents, 1e-9)


# ------------------------------------------------------------------------------------------------- the sum rule


@pytest.mark.sample(7)
@pytest.mark.parametrize("seed", range(3))
def test_all_exponents_add_up_to_the_log_determinants(kind, seed):
    draws = np.random.default_rng(seed)
    length, batch, hidden = int(draws.integers(20, 90)), [(), (2,), (1, 3)][seed], int(draws.integers(1, 6))
    history = random_history(kind, length=length, batch=batch, hidden=hidden, seed=seed)
    spectrum = lstmx.lyapunov_spectrum(history, "all")
    rule = spectrum.sum_rule
    assert rule.discrepancy < 1e-8
    assert (rule.closed_form is None) == (kind is lstmx.GRU)
    np.testing.assert_allclose(rule.exponents, spectrum.exponents.sum(), rtol=1e-12)
    logs = np.linalg.slogdet(lstmx.jacobians(history))[1]
    np.testing.assert_allclose(rule.log_determinant, logs[spectrum.transient :].mean(), rtol=1e-12)
    assert f"discrepancy {rule.discrepancy:.1e}" in str(spectrum)


@pytest.mark.parametrize(("transient", "options"), [(7, {}), (0, {"window": 10}), (13, {"reorthonormalise": 4})])
def test_no_step_after_an_odd_transient_is_lost(transient, options):
    history = random_history(lstmx.LSTM, length=101, batch=(2,))
    spectrum = lstmx.lyapunov_spectrum(history, "all", transient=transient, **options)
    assert (spectrum.transient, spectrum.steps) == (transient, 101 - transient)
    expected = np.linalg.slogdet(lstmx.jacobians(history)[transient:])[1].mean()
    np.testing.assert_allclose(spectrum.exponents.sum(), expected, rtol=0, atol=1e-9)
    lengths = np.full(len(spectrum.local), spectrum.window)
    lengths[0] = (spectrum.steps - 1) % spectrum.window + 1
    assert lengths.sum() == spectrum.steps
    mean = np.average(spectrum.local, axis=0, weights=lengths)
    assert_close(mean.mean(axis=0), spectrum.exponents, 1e-12)
    assert_close(spectrum.per_sequence, mean, 1e-12)


def test_the_sum_is_checked_when_it_can_be():
    history = random_history(lstmx.LSTM, length=20)
    assert lstmx.lyapunov_spectrum(history, "all").sum_rule is not None
    assert lstmx.lyapunov_spectrum(history).sum_rule is not None  # eight are all
    assert lstmx.lyapunov_spectrum(history, 7).sum_rule is None
    assert lstmx.lyapunov_spectrum(history, "all", check=False).sum_rule is None


# ------------------------------------------------------------------------------------------------- faces and sizes


@pytest.mark.sample(1)
def test_exponents_of_a_batch_are_means_over_its_sequences(kind):
    history = random_history(kind, length=60, batch=(2, 2), hidden=3)
    whole = lstmx.lyapunov_spectrum(history, "all", transient=10, reorthonormalise=2)
    alone = [
        lstmx.lyapunov_spectrum(history.sequence(*index), "all", transient=10, reorthonormalise=2)
        for index in np.ndindex(2, 2)
    ]
    # each spectrum is sorted on its own, and that of the batch by the means
    expected = np.stack([spectrum.exponents for spectrum in alone])
    assert_close(np.sort(whole.per_sequence.reshape(4, -1), axis=1)[:, ::-1], expected, 1e-10)
    assert_close(whole.exponents, np.sort(whole.per_sequence.mean(axis=(0, 1)))[::-1], 1e-12)
    assert_close(whole.exponents.sum(), expected.sum(axis=1).mean(), 1e-10)


@pytest.mark.slow
def test_numpy_and_jax_agree():
    history = random_history(lstmx.LSTM, length=90, batch=(2,), hidden=3)
    options = {"count": "all", "window": 7, "seed": 5}
    expected = lstmx.lyapunov_spectrum(history, **options)
    made = lstmx.lyapunov_spectrum(to("jax", history), **options)
    assert made.interval == expected.interval
    assert isinstance(made.exponents, np.ndarray)
    assert_close(made, expected, 1e-9)


@pytest.mark.parametrize(("length", "hidden"), [(1, 3), (30, 1), (1, 1), (2, 1)])
def test_one_step_and_one_unit_are_enough(kind, length, hidden):
    history = random_history(kind, length=length, hidden=hidden)
    spectrum = lstmx.lyapunov_spectrum(history, "all")
    assert spectrum.exponents.shape == (hidden * len(history.states),)
    expected = np.linalg.slogdet(lstmx.jacobians(history))[1][spectrum.transient :].mean()
    np.testing.assert_allclose(spectrum.exponents.sum(), expected, rtol=0, atol=1e-10)
    assert np.isnan(spectrum.standard_errors).all() == (len(spectrum.local) < 8)
    assert "discrepancy" in str(spectrum)


def test_float32_is_summed_in_float64(kind):
    spectra = [
        lstmx.lyapunov_spectrum(random_history(kind, length=200, dtype=dtype), 2)
        for dtype in ("float32", "float64")
    ]
    assert spectra[0].exponents.dtype == np.float64
    assert_close(spectra[0].exponents, spectra[1].exponents, 1e-4)


@pytest.mark.sample(2)
def test_a_history_of_states_alone_has_the_same_spectrum(kind):
    made = [
        lstmx.lyapunov_spectrum(random_history(kind, length=50, keep=keep), "all", audit=True)
        for keep in ("all", "states")
    ]
    assert_close(made[1], made[0], 1e-10)


def test_the_progress_bar_changes_no_number(capsys):
    history = random_history(lstmx.LSTM, length=203, batch=(2,))
    shown = lstmx.lyapunov_spectrum(history, "all", progress=True)
    assert_close(shown, lstmx.lyapunov_spectrum(history, "all"), 1e-10)
    assert "spectrum" in capsys.readouterr().err


@pytest.mark.sample(1)
def test_the_spectrum_does_not_depend_on_the_chunks_it_is_worked_in(monkeypatch, kind):
    history = random_history(kind, length=123, batch=(2,))
    options = {"transient": 7, "reorthonormalise": 3, "window": 40, "audit": True}
    whole = lstmx.lyapunov_spectrum(history, "all", **options)
    monkeypatch.setattr(sys.modules["lstmx.dynamics.passing"], "chunk_length", lambda *sizes: 7)
    assert_close(lstmx.lyapunov_spectrum(history, "all", **options), whole, 1e-9)


def test_summaries_have_their_shapes():
    spectrum = lstmx.lyapunov_spectrum(random_history(lstmx.LSTM, length=300, batch=(2,)), 3)
    assert spectrum.quarters.shape == (4, 3)
    assert spectrum.standard_errors.shape == (3,)
    assert spectrum.per_sequence.shape == (2, 3)
    assert spectrum.participation.shape == (3,)
    assert (spectrum.participation >= 1).all()
    assert (spectrum.participation <= 8).all()
    assert (np.diff(spectrum.exponents) <= 0).all()
    assert repr(spectrum) == f"LyapunovSpectrum(3 of 8 exponents, {spectrum.steps} steps)"
    assert "steps of 2 sequences" in str(spectrum)


def test_the_first_frame_is_forgotten():
    first, second = (
        lstmx.lyapunov_spectrum(long_pass(lstmx.LSTM)[0], 2, transient=400, seed=seed) for seed in (0, 1)
    )
    assert_close(first.exponents, second.exponents, 1e-9)


@pytest.mark.slow
def test_a_spectrum_can_be_computed_and_differentiated_within_jit():
    """Against central differences of the spectrum in NumPy, with recurrent kernel and inputs moved."""
    cell, params, xs, state = draw_pass(lstmx.LSTM, length=12, features=2, hidden=2)
    draws = np.random.default_rng(1)
    direction = draws.normal(size=params.recurrent_kernel.shape), draws.normal(size=xs.shape)

    def exponents(kernel, xs):
        moved = params._replace(recurrent_kernel=kernel)
        return lstmx.lyapunov_spectrum(lstmx.record(cell, moved, xs, state), 2, reorthonormalise=1).exponents

    at = params.recurrent_kernel, xs
    made, slope = jax.jit(functools.partial(jax.jvp, exponents))(to("jax", at), to("jax", direction))
    assert_close(made, exponents(*at), 1e-12)
    up, down = (exponents(*(x + h * u for x, u in zip(at, direction, strict=True))) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-7, atol=1e-8)


# ----------------------------------------------------------------------------------------------------- left alone


@pytest.mark.sample(1)
def test_a_network_left_alone_has_the_spectrum_of_a_pass_with_constant_input(kind):
    cell, params, xs, state = draw_pass(kind, length=1, batch=(2,))
    x = xs[0, 0]
    made = lstmx.autonomous_spectrum(cell, params, x, state, 120, "all")
    history = lstmx.record(cell, params, np.broadcast_to(x, (120, 2, 3)), state)
    assert_close(made, lstmx.lyapunov_spectrum(history, "all"), 1e-9)


def test_without_an_input_and_a_state_both_are_zero(kind):
    cell, params, _, _ = draw_pass(kind)
    made = lstmx.autonomous_spectrum(cell, params, steps=80, count=2)
    zeros = lstmx.record(cell, params, np.zeros((80, 3)))
    assert_close(made, lstmx.lyapunov_spectrum(zeros, 2), 1e-9)


@pytest.mark.slow
def test_a_network_left_alone_has_the_same_spectrum_under_jax():
    cell, params, xs, state = draw_pass(lstmx.GRU)
    numpy, jax = (
        lstmx.autonomous_spectrum(cell, *to(library, (params, xs[0], state)), 64, "all", transient=0)
        for library in ("numpy", "jax")
    )
    assert isinstance(jax.exponents, np.ndarray)
    assert_close(jax, numpy, 1e-9)


@pytest.mark.parametrize("progress", [False, True])
def test_how_a_network_left_alone_is_recorded_does_not_matter(monkeypatch, progress):
    cell, params, _, state = draw_pass(lstmx.LSTM, batch=(2,))
    whole = lstmx.autonomous_spectrum(cell, params, None, state, 203, "all", window=5, transient=10)
    monkeypatch.setattr(sys.modules["lstmx.dynamics.lyapunov"], "_RECORDED", 17 * 2 * (8 + 3))  # steps at a time
    split = lstmx.autonomous_spectrum(
        cell, params, None, state, 203, "all", window=5, transient=10, progress=progress
    )
    assert_close(split, whole, 1e-10)


@pytest.mark.slow
def test_a_fixed_point_has_the_logs_of_its_eigenvalues():
    """V44: h* = tanh 2 h* of one unit; and a symmetric kernel, whose Jacobian has real eigenvalues."""
    params = lstmx.SimpleRNNParams(np.zeros((1, 1)), np.array([[2.0]]), np.zeros(1))
    state = lstmx.SimpleRNNState(np.array([1.0]))
    spectrum = lstmx.autonomous_spectrum(lstmx.SimpleRNN(1, 1), params, None, state, 200, transient=100)
    np.testing.assert_allclose(spectrum.exponents, -1.793528506542, rtol=0, atol=1e-11)

    kernel = lcg((5, 5), 2, 0.8)
    cell = lstmx.SimpleRNN(1, 5)
    params = lstmx.SimpleRNNParams(np.zeros((1, 5)), kernel + kernel.T, 0.1 * np.arange(5.0))
    state = lstmx.record(cell, params, np.zeros((2000, 1))).final
    again, _ = cell.step(params, state, np.zeros(1))
    assert_close(again, state, 1e-14)
    jacobian = (1 - state.hidden**2)[:, None] * (kernel + kernel.T)
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(jacobian))))[::-1]
    # Between two QR decompositions the frame's condition grows by e^(λ₁ − λ₅) a step, and rounding errors of the
    # last direction with it; at a fixed point all intervals are the same, so these do not cancel.
    for interval in (1, 2, 3):
        spectrum = lstmx.autonomous_spectrum(
            cell, params, None, state, 1000, "all", transient=500, reorthonormalise=interval
        )
        condition = np.exp(interval * (expected[0] - expected[-1]))
        atol = 4 * np.finfo(float).eps * condition / interval
        np.testing.assert_allclose(spectrum.exponents, expected, rtol=0, atol=atol)
    chosen = lstmx.autonomous_spectrum(cell, params, None, state, 1000, "all", transient=500)
    np.testing.assert_allclose(chosen.exponents, spectrum.exponents, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_latch_has_the_known_first_exponent_in_both_states_and_between():
    """V44: one unit with b_f = 1, b_o = 2, U_g = 3."""
    params = lstmx.LSTMParams(np.zeros((1, 4)), np.array([[0.0, 0, 3, 0]]), np.array([0.0, 1, 0, 2]))
    for start, eigenvalue in ((1.8347952017722, 0.7343910871), (-1.8, 0.7343910871), (0.0, 2.0522541956)):
        o = 1 / (1 + np.exp(-2.0))
        state = lstmx.LSTMState(o * np.tanh([start]), np.array([start]))
        spectrum = lstmx.autonomous_spectrum(lstmx.LSTM(1, 1), params, None, state, 300, "all", transient=150)
        np.testing.assert_allclose(spectrum.exponents[0], np.log(eigenvalue), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["LSTM", "Zoneout", "stack"])
def test_linear_steps_have_the_spectrum_of_their_history(name, library):
    cell = {
        "LSTM": lstmx.LSTM(3, 4),
        "Zoneout": lstmx.Zoneout(lstmx.GRU(3, 4), hidden=0.3),
        "stack": lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 2)]),
    }[name]
    draws = np.random.default_rng(0)
    params = cell.init(draws, "float64")
    history = lstmx.record(cell, *to(library, (params, draws.normal(size=(150, 2, 3)))))
    found, expected = (lstmx.lyapunov_spectrum(one, "all") for one in (lstmx.linearise(history), history))
    assert_close(found.exponents, expected.exponents, 1e-12)
    assert_close(found.local, expected.local, 1e-10)
    assert_close(found.sum_rule, expected.sum_rule, 1e-12)
    assert (found.transient, found.window) == (expected.transient, expected.window)


@pytest.mark.slow
def test_spectra_of_linear_steps_can_be_differentiated():
    cell = lstmx.GRU(3, 4)
    draws = np.random.default_rng(0)
    params, xs = to("jax", (cell.init(draws, "float64"), draws.normal(size=(20, 3))))

    def least(params, read):
        return lstmx.lyapunov_spectrum(read(lstmx.record(cell, params, xs)), "all").exponents[-1]

    found, expected = (
        jax.jit(jax.grad(lambda p, r=r: least(p, r)))(params) for r in (lstmx.linearise, lambda h: h)
    )
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("measure", [lstmx.lyapunov_spectrum, lstmx.covariant_vectors])
@pytest.mark.parametrize("layers", [1, 2])
def test_linear_steps_that_do_not_all_count_are_refused(layers, measure):
    cell = lstmx.Stack([lstmx.GRU(3, 3)] * layers)
    draws = np.random.default_rng(0)
    given = cell.init(draws, "float64"), draws.normal(size=(40, 2, 3))
    for said in ({"lengths": [40, 30]}, {"mask": np.arange(40)[:, None] > [0, 3]}):
        with pytest.raises(ValueError, match="with mask, lengths or resets, which do not say what steps count"):
            measure(lstmx.linearise(lstmx.record(cell, *given, **said)))
    with pytest.raises(ValueError, match=r"expected steps along time, \[T, \*batch\], at least one"):
        measure(lstmx.linearise(lstmx.record(cell, given[0], given[1][:, 0]))[3])


@pytest.mark.parametrize("history", [None, 3.0, [np.eye(2)], "history"], ids=str)
def test_what_is_no_history_is_refused(history):
    with pytest.raises(TypeError, match=rf"history is a {type(history).__name__}; expected a History"):
        lstmx.lyapunov_spectrum(history)


def test_numbers_that_are_not_finite_are_named(library):
    cell, params, xs, state = draw_pass(lstmx.LSTM, batch=(2,))
    xs[3, 1, 2] = np.nan
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    with pytest.raises(ValueError, match=r"inputs is nan first at step 3, sequence \(1,\), feature 2"):
        lstmx.lyapunov_spectrum(history)
    state.cell[1, 0] = np.inf
    history = lstmx.record(cell, *to(library, (params, np.zeros_like(xs), state)))
    with pytest.raises(ValueError, match=r"cell_state is inf first at step 0, sequence \(1,\), unit 0"):
        lstmx.lyapunov_spectrum(history)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"count": 9}, ValueError, "count is 9; the joint state has 8 numbers, and as many exponents"),
        ({"transient": 7}, ValueError, "transient is 7; expected less than the 7 steps of the pass"),
        ({"reorthonormalise": 8}, ValueError, "reorthonormalise is 8; expected at most the 7 steps that count"),
        ({"count": 3, "check": True}, ValueError, "check needs all 8 exponents, not 3"),
        ({"window": 1.5}, TypeError, r"window is 1\.5; expected an integer"),
    ],
    ids=str,
)
def test_options_of_another_kind_or_range_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        lstmx.lyapunov_spectrum(random_history(lstmx.LSTM), **options)
    cell, params, _, _ = draw_pass(lstmx.LSTM)
    with pytest.raises(error, match=match):
        lstmx.autonomous_spectrum(cell, params, steps=7, **options)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"x": np.zeros(4)}, ValueError, r"x has shape \(4,\); expected \[input_size\] = \(3,\)"),
        ({"x": np.zeros(3, "float32")}, TypeError, "x is float32"),
        ({"x": np.array([0, np.nan, 0])}, ValueError, "x is nan first at step 0, feature 1"),
        ({"steps": 0}, ValueError, "steps is 0; expected an integer of at least 1"),
        ({"steps": 10.0}, TypeError, r"steps is 10\.0; expected an integer"),
        ({"state": np.zeros(4)}, TypeError, "state is a ndarray; .* expects LSTMState"),
    ],
    ids=str,
)
def test_a_constant_input_of_another_shape_or_kind_is_refused(arguments, error, match):
    cell, params, _, _ = draw_pass(lstmx.LSTM)
    with pytest.raises(error, match=match):
        lstmx.autonomous_spectrum(cell, params, **arguments)


def test_a_state_that_is_not_finite_is_refused():
    cell, params, _, _ = draw_pass(lstmx.LSTM)
    state = draw_state(cell, np.random.default_rng(0))
    state.cell[2] = np.nan
    with pytest.raises(ValueError, match=r"state\.cell is nan first at step 0, unit 2"):
        lstmx.autonomous_spectrum(cell, params, None, state, 10)
