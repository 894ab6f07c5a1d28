"""`lyapunov_spectrum` of given matrices, and `kaplan_yorke`: maps and products whose exponents are known."""

import functools
import warnings

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import lyapax
import numpy as np
import pytest
from hypothesis import given
from reference import assert_close, batches, draw_params, draw_state, lcg, seeds
from scipy.special import digamma, polygamma

import lstmx


def constant(matrix, steps, dtype="float64"):
    """The same matrix at every step."""
    return np.tile(np.asarray(matrix, dtype), (steps, 1, 1))


# -------------------------------------------------------------------------------------------- constant matrices


def test_an_orthogonal_map_has_exponents_of_nought():
    """V15."""
    matrix = np.linalg.qr(lcg((8, 8), 1))[0]
    spectrum = lstmx.lyapunov_spectrum(constant(matrix, 400), "all")
    np.testing.assert_allclose(spectrum.exponents, 0, rtol=0, atol=1e-12)
    assert spectrum.sum_rule.discrepancy < 1e-12


@pytest.mark.parametrize("interval", [None, 1, 7])
def test_a_diagonal_map_has_its_logs(interval):
    spectrum = lstmx.lyapunov_spectrum(
        constant(np.diag([0.5, 3.0, 1.0]), 500), "all", transient=100, reorthonormalise=interval
    )
    np.testing.assert_allclose(spectrum.exponents, np.log([3, 1, 0.5]), rtol=0, atol=1e-13)
    np.testing.assert_allclose(spectrum.local, np.tile(np.log([3, 1, 0.5]), (len(spectrum.local), 1)), atol=1e-13)
    np.testing.assert_allclose(spectrum.participation, 1, rtol=1e-13)


def test_a_jordan_block_grows_along_a_power_of_time():
    """V16: both exponents are ln 0.9, and what is left of the power dies as ln T / T."""
    spectrum = lstmx.lyapunov_spectrum(constant([[0.9, 1], [0, 0.9]], 4000), "all", transient=1000)
    np.testing.assert_allclose(spectrum.exponents.sum(), 2 * np.log(0.9), rtol=0, atol=1e-12)
    excess = np.log(4000 / 1000) / 3000
    np.testing.assert_allclose(spectrum.exponents, np.log(0.9) + excess * np.array([1, -1]), rtol=0, atol=1e-5)


def test_a_matrix_of_real_eigenvalues_has_the_logs_of_these():
    matrix = lcg((6, 6), 2, 0.6)
    matrix = matrix + matrix.T
    expected = np.sort(np.log(np.abs(np.linalg.eigvalsh(matrix))))[::-1]
    spectrum = lstmx.lyapunov_spectrum(constant(matrix, 3000), "all", transient=1500)
    np.testing.assert_allclose(spectrum.exponents, expected, rtol=0, atol=1e-10)


def test_a_stable_random_matrix_has_the_log_of_its_spectral_radius():
    """V25, from the fourth part of the pass on."""
    matrix = 0.9 * np.random.default_rng(0).standard_normal((100, 100)) / 10
    spectrum = lstmx.lyapunov_spectrum(np.broadcast_to(matrix, (1600, 100, 100)), 1, transient=1200)
    np.testing.assert_allclose(spectrum.exponents, -0.0695359061309, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_map_that_loses_rank_has_exponents_of_minus_infinity(rank):
    """Without a warning, and the others as they are."""
    frame = np.linalg.qr(lcg((5, 5), 3))[0]
    values = np.array([1.5, 0.8, 0.4, 0, 0]) * (np.arange(5) < rank)
    spectrum = lstmx.lyapunov_spectrum(constant(frame * values @ frame.T, 200), "all", transient=100)
    assert np.isneginf(spectrum.exponents[rank:]).all()
    np.testing.assert_allclose(spectrum.exponents[:rank], np.log(values[:rank]), rtol=0, atol=1e-12)
    assert f"{5 - rank} exponents are −inf: the state map is rank-deficient" in str(spectrum)


def test_a_nilpotent_map_has_no_finite_exponent():
    spectrum = lstmx.lyapunov_spectrum(constant([[0, 1], [0, 0]], 100), "all")
    assert np.isneginf(spectrum.exponents).all()
    assert spectrum.kaplan_yorke == 0
    assert spectrum.timescale == 0
    assert spectrum.entropy_rate == 0


# ---------------------------------------------------------------------------------------------- random products


@functools.cache
def newman(side, steps=2500, sequences=8):
    """iid Gaussian matrices of variance 1 / side."""
    draws = np.random.default_rng(1)
    return draws.standard_normal((steps, sequences, side, side)) / np.sqrt(side)


def test_a_product_of_gaussian_matrices_has_newmans_exponents():
    """V17, and the standard errors of independent steps are those of ln χ."""
    spectrum = lstmx.lyapunov_spectrum(newman(10), "all", transient=100)
    freedom = np.arange(10, 0, -1) / 2
    expected = 0.5 * (digamma(freedom) + np.log(2 / 10))
    np.testing.assert_allclose(expected[[0, 1, -1]], [-0.05166012, -0.11028349, -1.78647397], atol=1e-8)
    errors = np.sqrt(polygamma(1, freedom) / 4 / (2400 * 8))
    assert (np.abs(spectrum.exponents - expected) < 4 * errors).all()
    assert (spectrum.standard_errors > 0.9 * errors).all()
    assert (spectrum.standard_errors < 1.8 * errors).all()
    assert spectrum.sum_rule.discrepancy < 1e-10
    assert spectrum.sum_rule.closed_form is None
    assert spectrum.stationary


def test_leading_exponents_are_the_first_of_all():
    matrices = newman(10)[:, 0]
    leading = lstmx.lyapunov_spectrum(matrices, 3, transient=100)
    whole = lstmx.lyapunov_spectrum(matrices, "all", transient=100)
    assert leading.sum_rule is None
    assert_close(leading.exponents, whole.exponents[:3], 1e-10)


def test_a_product_that_first_expands_and_then_contracts_is_not_stationary():
    matrices = newman(4, 2000, 1)[:, 0]
    growth = np.where(np.arange(2000) < 1000, 2.0, 0.5)[:, None, None]
    spectrum = lstmx.lyapunov_spectrum(growth * matrices, 2)
    assert not spectrum.stationary
    assert "NOT stationary" in str(spectrum)
    steady = lstmx.lyapunov_spectrum(matrices, 2)
    assert steady.stationary
    assert "NOT stationary" not in str(steady)
    assert spectrum.quarters.shape == (4, 2)
    np.testing.assert_allclose(np.diff(spectrum.quarters[[0, 3], 0]), -2 * np.log(2), atol=0.2)


def test_too_few_windows_are_not_called_stationary():
    spectrum = lstmx.lyapunov_spectrum(newman(4, 20, 1)[:, 0], 2)
    assert not spectrum.stationary
    assert "fewer than 32 windows" in str(spectrum)


# ---------------------------------------------------------------------------------------------- the order of time

PERIOD = np.array([[[1.2, 0.3], [-0.4, 0.5]], [[0.2, 1.1], [0.9, -0.3]], [[0.7, -1.0], [0.1, 0.6]]])  # V18


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("matrices", "expected"),
    [
        (PERIOD, (0.12926969213, -0.44048314888)),
        (PERIOD[::-1], (-0.09114932738, -0.22006412936)),
        (PERIOD[::-1].swapaxes(1, 2), (0.12926969213, -0.44048314888)),
        (PERIOD.swapaxes(1, 2), (-0.09114932738, -0.22006412936)),
    ],
    ids=["in time", "reversed", "adjoint", "transposed in time"],
)
@pytest.mark.parametrize("interval", [None, 1, 3])
def test_the_order_of_a_periodic_product_matters(matrices, expected, interval):
    """V18: the sign of λ₁ tells the right order from the others that published code takes."""
    spectrum = lstmx.lyapunov_spectrum(
        np.tile(matrices, (400, 1, 1)), "all", transient=600, reorthonormalise=interval
    )
    np.testing.assert_allclose(spectrum.exponents, expected, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_the_order_of_periodic_products_matters_under_jax():
    pair = jnp.asarray(np.tile(np.stack([PERIOD, PERIOD[::-1]], axis=1), (400, 1, 1, 1)))
    spectrum = lstmx.lyapunov_spectrum(pair, "all", transient=600)
    expected = np.array([(0.12926969213, -0.44048314888), (-0.09114932738, -0.22006412936)])
    np.testing.assert_allclose(spectrum.per_sequence, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(spectrum.exponents, expected.mean(axis=0), rtol=0, atol=1e-10)
    assert spectrum.sum_rule.discrepancy < 1e-12


# ------------------------------------------------------------------------------------------------- chaotic maps


def test_the_logistic_map_has_ln_two():
    """V19."""
    x, slopes = 0.3, []
    for _ in range(11_000):
        slopes.append(4 * (1 - 2 * x))
        x = 4 * x * (1 - x)
    spectrum = lstmx.lyapunov_spectrum(np.reshape(slopes, (-1, 1, 1)), transient=1000)
    np.testing.assert_allclose(spectrum.exponents, np.log(2), rtol=0, atol=1e-3)
    np.testing.assert_allclose(spectrum.exponents[0], np.log(np.abs(slopes[1000:])).mean(), rtol=0, atol=1e-12)
    assert spectrum.entropy_rate == spectrum.exponents[0]
    assert spectrum.kaplan_yorke == 1
    assert np.isinf(spectrum.timescale)


def test_the_cat_map_has_the_golden_ratio_squared():
    """V19."""
    spectrum = lstmx.lyapunov_spectrum(constant([[2, 1], [1, 1]], 200), "all", transient=50)
    np.testing.assert_allclose(spectrum.exponents, 0.9624236501192069 * np.array([1, -1]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(spectrum.kaplan_yorke, 2, rtol=0, atol=1e-12)


def test_the_henon_map_has_the_known_spectrum():
    """V20 over 64 orbits of 1000 steps: 0.41925(3), and a dimension of 1.25828."""
    draws = np.random.default_rng(0)
    x, y = draws.uniform(-0.1, 0.1, (2, 64))
    jacobians = np.zeros((1100, 64, 2, 2))
    for t in range(-100, 1100):
        if t >= 0:
            jacobians[t] = np.moveaxis(np.array([[-2.8 * x, 1 + 0 * x], [0.3 + 0 * x, 0 * x]]), -1, 0)
        x, y = 1 - 1.4 * x**2 + y, 0.3 * x
    spectrum = lstmx.lyapunov_spectrum(jacobians, "all", transient=100)
    np.testing.assert_allclose(spectrum.exponents.sum(), np.log(0.3), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        spectrum.exponents, [0.41925, -1.62322], rtol=0, atol=4 * spectrum.standard_errors[0]
    )
    assert spectrum.standard_errors[0] < 2e-3
    np.testing.assert_allclose(spectrum.kaplan_yorke, 1.25828, rtol=0, atol=5e-3)
    assert spectrum.per_sequence.shape == (64, 2)
    assert_close(spectrum.per_sequence.mean(axis=0), spectrum.exponents, 1e-13)


def lorenz(points):
    x, y, z = points
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


def lorenz_slope(points):
    """∂(ẋ, ẏ, ż)/∂(x, y, z), [B, 3, 3]."""
    x, y, z = points
    one = np.ones_like(x)
    rows = [[-10 * one, 10 * one, 0 * one], [28 - z, -one, -x], [y, x, -8 / 3 * one]]
    return np.moveaxis(np.array(rows), -1, 0)


def test_the_lorenz_system_has_the_known_spectrum():
    """V21 over 64 orbits of 15 time units, by the exact Jacobian of Runge and Kutta's step."""
    dt, unit = 0.01, np.eye(3)
    points = np.array([[1.0], [1.0], [25.0]]) + np.random.default_rng(0).uniform(-5, 5, (3, 64))
    jacobians = []
    for _ in range(2500):
        a = lorenz(points)
        p2 = points + dt / 2 * a
        b = lorenz(p2)
        p3 = points + dt / 2 * b
        c = lorenz(p3)
        p4 = points + dt * c
        A = lorenz_slope(points)
        B = lorenz_slope(p2) @ (unit + dt / 2 * A)
        C = lorenz_slope(p3) @ (unit + dt / 2 * B)
        D = lorenz_slope(p4) @ (unit + dt * C)
        jacobians.append(unit + dt / 6 * (A + 2 * B + 2 * C + D))
        points = points + dt / 6 * (a + 2 * b + 2 * c + lorenz(p4))
    spectrum = lstmx.lyapunov_spectrum(np.stack(jacobians), "all", transient=1000)
    first, second, third = spectrum.exponents / dt
    errors = spectrum.per_sequence.std(axis=0, ddof=1) / np.sqrt(64) / dt
    assert errors.max() < 0.03
    assert abs(first - 0.90515) < 4 * errors[0]
    assert abs(second) < 4 * errors[1]
    assert abs(third + 14.57169) < 4 * errors[2]
    np.testing.assert_allclose(first + second + third, -10 - 1 - 8 / 3, rtol=0, atol=2e-4)
    np.testing.assert_allclose(spectrum.kaplan_yorke, 2.0621, rtol=0, atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN], ids=lambda kind: kind.__name__)
def test_an_autonomous_network_has_the_spectrum_that_lyapax_gives_it(kind):
    """What lyapax's frame gave in its first 1000 steps is taken off its running means."""
    cell = kind(1, 3)
    params = jax.tree.map(jnp.asarray, draw_params(cell, np.random.default_rng(4), scale=1.5))
    x = jnp.array([0.5])

    def step(packed):
        after, _ = cell.step(params, cell.state_type(*jnp.split(packed, packed.size // 3)), x)
        return jnp.concatenate(after)

    start = draw_state(cell, np.random.default_rng(5))
    with jax.numpy_dtype_promotion("standard"):
        theirs = np.asarray(lyapax.lyapunov_spectrum(step, jnp.concatenate(start), 1.0, 5000).history)
    mine = lstmx.autonomous_spectrum(cell, params, x, start, 5000, "all", transient=1000, reorthonormalise=1)
    expected = np.sort((5000 * theirs[4999] - 1000 * theirs[999]) / 4000)[::-1]
    np.testing.assert_allclose(mine.exponents, expected, rtol=0, atol=2e-3)
    np.testing.assert_allclose(mine.exponents.sum(), expected.sum(), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------- Kaplan–Yorke


@pytest.mark.parametrize(
    ("exponents", "size", "expected"),
    [
        ((0.9056, 0, -14.5723), None, 2.0621453031),
        ((-14.5723, 0.9056, 0), None, 2.0621453031),
        ((0.41922, -1.62319), None, 1.2582692106),
        ((0.41922, -1.62319), 5, 1.2582692106),
        ((0.9624236501, -0.9624236501), None, 2),
        ((-0.1, -0.2), None, 0),
        ((-0.1,), 7, 0),
        ((0.2, 0.1), None, 2),
        ((0.2, 0.1), 2, 2),
        ((0.2, 0.1), 3, np.nan),
        ((0.0, -1.0), None, 1),
        ((0.5, -np.inf), None, 1),
    ],
    ids=str,
)
def test_the_dimension_of_kaplan_and_yorke(exponents, size, expected):
    """V22."""
    np.testing.assert_allclose(lstmx.kaplan_yorke(exponents, size), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("exponents", [(), (0.1, np.nan)], ids=str)
def test_no_exponents_and_nan_have_no_dimension(exponents):
    with pytest.raises(ValueError, match="expected at least one number, and no NaN"):
        lstmx.kaplan_yorke(exponents)


# ---------------------------------------------------------------------------------------------------- precision


def test_too_long_an_interval_warns_with_its_number():
    matrices = constant(np.diag(np.exp([1.0, 0.0, -1.0])), 640, dtype="float32")
    with pytest.warns(RuntimeWarning, match=r"16 steps from one to the next are too many for float32"):
        lstmx.lyapunov_spectrum(matrices, "all", reorthonormalise=16, check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spectrum = lstmx.lyapunov_spectrum(matrices, "all")
    assert spectrum.exponents.dtype == np.float64
    np.testing.assert_allclose(spectrum.exponents, [1, 0, -1], rtol=0, atol=1e-5)
    lstmx.lyapunov_spectrum(matrices, 1, reorthonormalise=16)  # one direction cannot be lost


@pytest.mark.slow
def test_an_interval_that_was_not_given_fits_the_precision():
    matrices = np.diag(np.exp([1.0, 0.0, -1.0]))
    single, double = (
        lstmx.lyapunov_spectrum(constant(matrices, 3200, dtype=dtype), "all").interval
        for dtype in ("float32", "float64")
    )
    assert 1 < single < double <= 32
    assert 2 * single <= np.log(1 / np.finfo("float32").eps)
    assert 2 * double <= np.log(1 / np.finfo("float64").eps)


def test_the_interval_changes_no_number():
    matrices = newman(4, 1000, 2)
    made = [
        lstmx.lyapunov_spectrum(matrices, "all", transient=100, reorthonormalise=interval, window=60)
        for interval in (1, 4, 7)
    ]
    for other in made[1:]:
        assert_close(other.exponents, made[0].exponents, 1e-11)
        assert_close(other.local, made[0].local, 1e-9)
        assert_close(other.participation, made[0].participation, 1e-9)


@pytest.mark.slow
def test_numbers_out_of_the_range_between_decompositions_are_refused():
    """e^200 per step leaves float64 within four steps."""
    matrices = jnp.asarray(constant(np.exp(200.0) * np.eye(2), 64))
    match = (
        "left the range of float64 within the 8 steps between QR decompositions; pass a smaller reorthonormalise"
    )
    with pytest.raises(ValueError, match=match):
        lstmx.lyapunov_spectrum(matrices, 1, reorthonormalise=8)
    np.testing.assert_allclose(lstmx.lyapunov_spectrum(matrices, 1).exponents, 200, rtol=1e-12)


@pytest.mark.slow
def test_growth_and_decay_far_beyond_the_range_are_followed():
    for rate in (-300.0, 300.0):
        matrices = np.exp(rate) * np.tile(np.diag([1.0, 0.5]), (3000, 1, 1))
        spectrum = lstmx.lyapunov_spectrum(matrices, "all", transient=300)
        np.testing.assert_allclose(spectrum.exponents, rate + np.log([1, 0.5]), rtol=1e-12)


# ------------------------------------------------------------------------------------------------ sizes and cuts


@pytest.mark.parametrize(("steps", "transient", "window"), [(101, 10, 13), (101, 0, 100), (7, 3, 4), (1, 0, 1)])
def test_every_step_after_the_transient_counts_once(steps, transient, window):
    matrices = newman(4, 101, 2)[:steps]
    spectrum = lstmx.lyapunov_spectrum(matrices, "all", transient=transient, window=window)
    counted = steps - transient
    assert (spectrum.steps, spectrum.transient, spectrum.window) == (counted, transient, window)
    assert spectrum.local.shape == (-(-counted // window), 2, 4)
    expected = np.linalg.slogdet(matrices[transient:])[1].mean()
    np.testing.assert_allclose(spectrum.exponents.sum(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(spectrum.sum_rule.log_determinant, expected, rtol=0, atol=1e-12)
    assert_close(spectrum.per_sequence.mean(axis=0), spectrum.exponents, 1e-13)


@pytest.mark.slow
@given(st.data())
def test_any_cut_keeps_every_step(data):
    """Near-isometries, whose frame stays well conditioned however long the interval."""
    steps, side = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 4))
    transient = data.draw(st.none() | st.integers(0, steps - 1))
    counted = steps - (steps // 10 if transient is None else transient)
    interval, window = (data.draw(st.none() | st.integers(1, counted)) for _ in range(2))
    draws = np.random.default_rng(data.draw(seeds))
    noise = 0.02 * draws.normal(size=(steps, *data.draw(batches), side, side))
    matrices = np.linalg.qr(lcg((side, side), 1))[0] + noise
    options = {"transient": transient, "reorthonormalise": interval, "window": window}
    spectrum = lstmx.lyapunov_spectrum(matrices, "all", **options)
    assert spectrum.transient + spectrum.steps == steps
    assert len(spectrum.local) == -(-spectrum.steps // spectrum.window)
    assert transient in (None, spectrum.transient)
    assert window in (None, spectrum.window)
    logs = np.linalg.slogdet(matrices[spectrum.transient :])[1]
    np.testing.assert_allclose(spectrum.exponents.sum(), logs.mean(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(spectrum.per_sequence.sum(axis=-1), logs.mean(axis=0), rtol=0, atol=1e-11)
    assert spectrum.sum_rule.discrepancy < 1e-11


def test_one_number_has_the_mean_of_its_logs():
    slopes = np.random.default_rng(0).normal(size=(50, 3, 1, 1))
    spectrum = lstmx.lyapunov_spectrum(slopes, transient=7)
    np.testing.assert_allclose(spectrum.per_sequence, np.log(np.abs(slopes[7:, ..., 0])).mean(axis=0), atol=1e-13)


def test_without_a_word_eight_exponents_are_computed():
    assert lstmx.lyapunov_spectrum(newman(10)[:50, 0]).exponents.shape == (8,)
    assert lstmx.lyapunov_spectrum(newman(4, 101, 2)).exponents.shape == (4,)


def test_progress_changes_no_number(capsys):
    matrices = newman(4, 1000, 2)
    shown = lstmx.lyapunov_spectrum(matrices, "all", progress=True)
    assert_close(shown, lstmx.lyapunov_spectrum(matrices, "all"), 1e-12)
    assert "spectrum" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- bad input

FINE = np.ones((10, 3, 3)) * np.eye(3)


@pytest.mark.parametrize(
    ("matrices", "error", "match"),
    [
        (
            np.ones((10, 3, 4)),
            ValueError,
            r"array \(10, 3, 4\); expected Jacobians \[T, \*batch, S, S\], or a History",
        ),
        (np.ones((3, 3)), ValueError, r"array \(3, 3\); expected Jacobians"),
        (np.ones((0, 3, 3)), ValueError, r"array \(0, 3, 3\); expected Jacobians"),
        (np.ones((10, 0, 0)), ValueError, r"array \(10, 0, 0\); expected Jacobians"),
        (np.ones((10, 3, 3), int), TypeError, "array of int64; expected float32 or float64"),
        (np.ones((10, 3, 3), complex), TypeError, "array of complex128; expected float32 or float64"),
        ([[[1.0]]], TypeError, "history is a list; expected a History"),
        (np.where(np.arange(10)[:, None, None] == 4, np.nan, FINE), ValueError, "is nan first at step 4"),
    ],
    ids=lambda value: "" if isinstance(value, (str, type)) else str(np.shape(value)),
)
def test_what_is_no_product_of_matrices_is_refused(matrices, error, match):
    with pytest.raises(error, match=match):
        lstmx.lyapunov_spectrum(matrices)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"count": 4}, ValueError, "count is 4; the joint state has 3 numbers, and as many exponents"),
        ({"count": 0}, ValueError, "count is 0; expected an integer of at least 1"),
        ({"count": 2.0}, TypeError, r"count is 2\.0; expected an integer"),
        ({"count": "some"}, ValueError, "count is 'some'; expected an integer, 'all' or None"),
        ({"transient": 10}, ValueError, "transient is 10; expected less than the 10 steps of the pass"),
        ({"transient": -1}, ValueError, "transient is -1; expected an integer of at least 0"),
        ({"reorthonormalise": 10}, ValueError, "reorthonormalise is 10; expected at most the 9 steps that count"),
        ({"reorthonormalise": 0}, ValueError, "reorthonormalise is 0; expected an integer of at least 1"),
        ({"window": 8, "transient": 4}, ValueError, "window is 8; expected at most the 6 steps that count"),
        ({"count": 2, "check": True}, ValueError, "check needs all 3 exponents, not 2: pass count='all'"),
        (
            {"audit": True},
            ValueError,
            "audit reads the blocks of a cell's Jacobians: it needs a history, not linear maps",
        ),
    ],
    ids=str,
)
def test_options_of_another_kind_or_range_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        lstmx.lyapunov_spectrum(FINE, **options)
