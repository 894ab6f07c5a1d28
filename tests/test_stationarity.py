"""Whether a spectrum is one of a stationary pass: false alarms, alarms, and what the summary says in words."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import draw_pass, to

import lstmx
from lstmx.dynamics import LyapunovSpectrum

STEPS = 20  # of a window
CHAOS, SPREAD = 0.16, 0.1  # mean and deviation of a chaotic window's exponent


def spectrum_of(local):
    """A spectrum with these local exponents, [windows, k]."""
    local = np.asarray(local, float)
    count = local.shape[1]
    return LyapunovSpectrum(
        exponents=local.mean(axis=0),
        local=local,
        participation=np.ones(count),
        sum_rule=None,
        audit=None,
        size=count + 1,
        steps=STEPS * len(local),
        transient=0,
        interval=1,
        window=STEPS,
    )


def correlated(windows, series, time, seed=0):
    """Stationary series [windows, series] of deviation 1, correlated like e^(−lag / time)."""
    draws, kept = np.random.default_rng(seed), np.exp(-1 / time) if time else 0.0
    noise = np.sqrt(1 - kept**2) * draws.normal(size=(windows, series))
    rows = [draws.normal(size=series)]
    for row in noise[1:]:
        rows.append(kept * rows[-1] + row)
    return np.array(rows)


def alarms(series):
    """Share of series [windows, series] that are called NOT stationary."""
    return np.mean([not spectrum_of(column[:, None]).stationary for column in series.T])


def dies(windows, share, time, rest=0.02, series=100):
    """Chaos for a share of the windows, then an exponent of 0 with little spread."""
    chaotic = np.arange(windows)[:, None] < share * windows
    noise = correlated(windows, series, time)
    return np.where(chaotic, CHAOS + SPREAD * noise, rest * noise)


# ---------------------------------------------------------------------------------------------------- specificity


@pytest.mark.sample(2)
@pytest.mark.parametrize("mean", [0.0, CHAOS])
@pytest.mark.parametrize("time", [0, 1, 3, 5, 10])
@pytest.mark.parametrize("windows", [128, 250, pytest.param(1000, marks=pytest.mark.slow)])
def test_correlated_windows_are_stationary(windows, time, mean):
    """False alarms of one exponent: fewer than 5 % of 400 series."""
    assert alarms(mean + SPREAD * correlated(windows, 400, time)) < 0.05


@pytest.mark.parametrize("time", [0, 1, 5, 10])
def test_eight_exponents_raise_hardly_more_false_alarms(time):
    """Of eight independent ones, in 250 windows: fewer than 7 % of 100 spectra, an error above 4 %."""
    series = correlated(250, 800, time).reshape(250, 100, 8)
    assert np.mean([not spectrum_of(series[:, k]).stationary for k in range(100)]) < 0.07


@pytest.mark.parametrize("period", [2, 3.3, 7, 15])
@pytest.mark.parametrize("windows", [64, 250, 1000])
def test_periodic_windows_are_stationary(windows, period):
    phases = np.linspace(0, 2 * np.pi, 100)
    angles = 2 * np.pi * np.arange(windows)[:, None] / period + phases
    assert alarms(SPREAD * np.cos(angles)) == 0


@pytest.mark.parametrize("value", [0.0, -0.7, 0.3])
def test_a_pass_at_rest_is_stationary(value):
    rounding = 1e-15 * np.random.default_rng(0).normal(size=(100, 3))
    spectrum = spectrum_of(value + rounding)
    assert spectrum.stationary
    np.testing.assert_allclose(spectrum.settled, value, atol=1e-14)


# ---------------------------------------------------------------------------------------------------- sensitivity


def test_a_transient_in_the_first_quarter_is_seen():
    """λ₁ by quarters 0.16, 0, 0, 0: the first one's spread is the transient's own."""
    spectrum = spectrum_of(np.where(np.arange(64) < 16, CHAOS, 0.0)[:, None])
    np.testing.assert_allclose(spectrum.quarters[:, 0], [CHAOS, 0, 0, 0], atol=1e-15)
    assert not spectrum.stationary
    np.testing.assert_array_equal(spectrum.settled, 0)
    assert "NOT stationary: λ₁ by quarters +0.16, +0, +0, +0; the last three quarters are, with λ₁ +0" in str(
        spectrum
    )


@pytest.mark.parametrize("share", [0.06, 0.12, 0.2, 0.25, 0.4, 0.5, 0.6])
@pytest.mark.parametrize("windows", [250, 1000])
def test_chaos_that_dies_is_seen_however_long_it_lasts(windows, share):
    assert alarms(dies(windows, share, 0)) > 0.95


@pytest.mark.parametrize("size", [5, 10, 30, 100])
def test_the_shortest_transient_is_seen_where_the_rest_is_at_rest(size):
    """A few windows at the start whose sum is `size` nats, in 1000 of them."""
    local = np.where(np.arange(1000) < 5, size / 5 / STEPS, 0.0)[:, None]
    assert not spectrum_of(local).stationary


@pytest.mark.parametrize("share", [0.25, 0.4])
def test_chaos_with_a_memory_that_dies_is_seen(share):
    assert alarms(dies(1000, share, 3)) > 0.95


@pytest.mark.parametrize(("drift", "windows"), [(2, 1000), (4, 250), (8, 64)])
def test_a_slow_drift_is_seen(drift, windows):
    """Of a few standard deviations of a window, over the whole pass."""
    trend = drift * np.linspace(0, 1, windows)[:, None]
    assert alarms(SPREAD * (trend + correlated(windows, 100, 0))) > 0.95


# ------------------------------------------------------------------------------------------------- what is settled


@pytest.mark.parametrize(
    ("share", "quarters", "words"), [(0.2, 3, "last three quarters are"), (0.4, 2, "last half is")]
)
def test_the_later_part_is_the_longest_that_is_stationary(share, quarters, words):
    local = dies(400, share, 0, series=1)
    spectrum = spectrum_of(np.concatenate([local, local - 1], axis=1))
    np.testing.assert_allclose(spectrum.settled, spectrum.local[-quarters * 100 :].mean(axis=0), rtol=1e-12)
    assert f"the {words}, with λ₁ {spectrum.settled[0]:+.5g}" in str(spectrum)


def test_a_stationary_pass_is_settled_as_a_whole():
    spectrum = spectrum_of(CHAOS + SPREAD * correlated(200, 2, 1))
    np.testing.assert_allclose(spectrum.settled, spectrum.exponents, rtol=1e-12)


def test_what_changes_up_to_the_end_is_not_settled():
    spectrum = spectrum_of(np.linspace(0, 1, 200)[:, None])
    assert np.isnan(spectrum.settled).all()
    assert "nor is the last half alone, so that a longer pass is needed" in str(spectrum)


def test_a_shorter_first_window_counts_by_its_steps():
    kernel = np.diag([0.9, 0.5])
    matrices = np.repeat(kernel[None], 1003, axis=0)
    spectrum = lstmx.lyapunov_spectrum(matrices, window=10, transient=0, reorthonormalise=5)
    assert len(spectrum.local) == 101
    np.testing.assert_allclose(spectrum.settled[:1], spectrum.exponents[:1], rtol=1e-2)


@functools.cache
def left_alone(kind, hidden, gain, seed, steps):
    """A network with a random recurrent kernel, from a random state."""
    draws, cell = np.random.default_rng(seed), kind(1, hidden)
    params = cell.init(draws, dtype="float64")
    kernel = gain * draws.standard_normal(params.recurrent_kernel.shape) / np.sqrt(hidden)
    fields = (0.5 * draws.standard_normal(hidden) for _ in cell.state_type._fields)
    params = params._replace(recurrent_kernel=kernel)
    return lstmx.autonomous_spectrum(cell, params, None, cell.state_type(*fields), steps, 1)


def silenced(at, steps):
    """A chaotic network, until a strong constant input takes it to a fixed point: when is not left to rounding."""
    draws, cell = np.random.default_rng(2), lstmx.SimpleRNN(1, 64)
    kernel, inputs = 2.5 * draws.standard_normal((64, 64)) / 8, draws.standard_normal((1, 64))
    state = lstmx.SimpleRNNState(0.5 * draws.standard_normal(64))
    xs = np.where(np.arange(steps) < at, 0.0, 3.0)[:, None]
    history = lstmx.record(cell, lstmx.SimpleRNNParams(inputs, kernel, np.zeros(64)), xs, state)
    at_rest = lstmx.jacobians(history[-1:])[0]
    return lstmx.lyapunov_spectrum(history, 1), np.log(np.abs(np.linalg.eigvals(at_rest)).max())


def test_a_network_whose_chaos_dies_early_is_not_stationary():
    """λ₁ is about 0.15 until step 600, and below 0 from then on."""
    spectrum, at_rest = silenced(600, 2000)
    assert at_rest < -0.1
    assert spectrum.quarters[0, 0] > 0.04
    assert not spectrum.stationary
    np.testing.assert_allclose(spectrum.settled, at_rest, rtol=0, atol=1e-3)
    assert f"the last three quarters are, with λ₁ {spectrum.settled[0]:+.5g}" in str(spectrum)


@pytest.mark.slow
def test_a_network_whose_chaos_dies_late_is_not_stationary():
    """λ₁ is about 0.15 until step 1,300, and below 0 from then on."""
    spectrum, at_rest = silenced(1300, 2000)
    assert (spectrum.quarters[:2, 0] > 0.1).all()
    assert not spectrum.stationary
    assert np.isnan(spectrum.settled).all()
    np.testing.assert_allclose(spectrum.quarters[3, 0], at_rest, rtol=0, atol=1e-3)
    later, _ = silenced(1300, 16_000)
    np.testing.assert_allclose(later.settled, at_rest, rtol=0, atol=1e-3)


@pytest.mark.sample(2)
@pytest.mark.parametrize("seed", range(3))
def test_networks_with_lasting_chaos_are_stationary(seed):
    spectrum = left_alone(lstmx.SimpleRNN, 64, 2.5, seed, 4000)
    assert spectrum.exponents[0] > 0.05
    assert spectrum.stationary


# ------------------------------------------------------------------------------------------------------- in words


def test_what_does_not_apply_to_a_positive_exponent_is_told_in_words():
    local = np.tile([0.3, 0.2, 0.1], (64, 1))
    text = str(spectrum_of(local))
    assert "time scale −1/λ₁: none, for λ₁ is not below 0" in text
    assert 'Kaplan–Yorke dimension: needs more than these 3 exponents (count="all")' in text
    assert 'entropy rate: needs more than these 3 exponents (count="all")' in text
    assert "nan" not in text
    assert "inf" not in text


def test_a_dimension_may_need_more_exponents_where_the_entropy_rate_does_not():
    text = str(spectrum_of(np.tile([0.3, -0.1], (64, 1))))
    assert "Kaplan–Yorke dimension: needs more than these 2 exponents" in text
    assert "entropy rate at most 0.3 nats per step" in text


@pytest.mark.parametrize("windows", [1, 3, 5, 7, 8, 31])
def test_too_few_windows_are_told_in_words(windows):
    text = str(spectrum_of(0.1 + correlated(windows, 3, 0)))
    assert ("fewer than 8 windows: no standard errors" in text) == (windows < 8)
    assert "fewer than 32 windows: whether it is stationary cannot be told" in text
    assert ("λ₁ by quarters" in text) == (windows >= 4)
    assert "nan" not in text


def test_lost_directions_have_nothing_to_compare():
    kernel = np.array([[0.5, 0.0], [0.0, 0.0]])
    text = str(lstmx.lyapunov_spectrum(np.repeat(kernel[None], 200, axis=0), "all"))
    assert "nothing to compare" in text
    assert "nan" not in text


# ----------------------------------------------------------------------------------- derivatives, left to itself


@pytest.mark.slow
@pytest.mark.parametrize("of", ["params", "x", "state"])
def test_the_exponents_of_a_network_left_alone_can_be_differentiated(of):
    """By reverse mode, against central differences of the spectrum in NumPy, along random directions."""
    cell, params, xs, state = draw_pass(lstmx.LSTM, features=2, hidden=2)
    at = {"params": params, "x": xs[0], "state": state}
    draws = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: draws.normal(size=x.shape), at[of])

    def first(value):
        given = {**at, of: value}
        return lstmx.autonomous_spectrum(cell, **given, steps=12, count=2, reorthonormalise=1).exponents[0]

    at_jax = to("jax", at[of])
    slope = jax.grad(first)(at_jax)
    found = sum(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.sum(a * b)), slope, direction)))
    up, down = (first(jax.tree.map(lambda x, u, h=h: x + h * u, at[of], direction)) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(found, (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_a_spectrum_left_alone_can_be_had_for_many_gains_at_once():
    cell, params, xs, state = draw_pass(lstmx.GRU, features=2, hidden=3)
    given = to("jax", (params, xs[0], state))

    def exponents(gain):
        moved = given[0]._replace(recurrent_kernel=gain * given[0].recurrent_kernel)
        return lstmx.autonomous_spectrum(cell, moved, *given[1:], steps=30, count=2, reorthonormalise=1).exponents

    gains = np.array([0.5, 1.0, 1.5])
    together = jax.jit(jax.vmap(exponents))(jnp.asarray(gains))
    np.testing.assert_allclose(together, [exponents(gain) for gain in gains], rtol=1e-10)
