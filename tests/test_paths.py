"""`path_spectrum`: the orders of a Jacobian product, one by one, and their sum."""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from reference import LIBRARIES, assert_close, draw_pass, lcg, lcg_params, random_history, to

import lstmx

# ------------------------------------------------------------------------------------------------ oracles


@functools.partial(jax.jit, static_argnums=0)
def jacobians_of(cell, params, xs, state):
    """One-step Jacobians [T, 2H, 2H] of the joint state, by autodiff of the step."""
    size = cell.hidden_size

    def one(flat, x):
        after, _ = cell.step(params, lstmx.LSTMState(flat[:size], flat[size:]), x)
        return jnp.concatenate(after)

    def step(flat, x):
        return one(flat, x), jax.jacfwd(one)(flat, x)

    return jax.lax.scan(step, jnp.concatenate(state), xs)[1]


def expand(jacobians, orders):
    """P_k for k below `orders`, then everything above: products of A (columns of c) and B (columns of h)."""
    size = jacobians.shape[-1] // 2
    products = np.zeros((orders + 1, 2 * size, 2 * size))
    products[0] = np.eye(2 * size)
    for jacobian in jacobians:
        A, B = jacobian.copy(), jacobian.copy()
        A[:, :size] = 0
        B[:, size:] = 0
        rest = jacobian @ products[-1] + B @ products[-2]
        lower = A @ products[:-1]
        lower[1:] += B @ products[:-2]
        products = np.concatenate([lower, rest[None]])
    return products


@functools.cache
def example(batch=(), length=7, hidden=3):
    made = draw_pass(lstmx.LSTM, length=length, batch=batch, features=2, hidden=hidden, seed=4)
    cell, params, xs, state = made
    jacobians = np.zeros((length, *batch, 2 * hidden, 2 * hidden))
    for index in np.ndindex(*batch):
        single = lstmx.LSTMState(*(x[index] for x in state))
        jacobians[(slice(None), *index)] = jacobians_of(cell, params, xs[(slice(None), *index)], single)
    return made, jacobians


def history_of(made, library):
    cell, params, xs, state = made
    return lstmx.record(cell, *to(library, (params, xs, state)))


def backwards(jacobians, seed, orders):
    """The seed carried back by order: cotangents of the state before the stretch, and all along it."""
    along = [seed * (np.arange(orders + 1) == 0)[:, None]]
    for t in range(1, len(jacobians) + 1):
        transposed = expand(jacobians[len(jacobians) - t :], orders).swapaxes(-1, -2)
        along.append(transposed @ seed)
    return along[-1], np.stack(along[:-1][::-1])  # [T, orders + 1, 2H]: what arrives after each step


def joint(state):
    return np.concatenate([np.asarray(x) for x in state], axis=-1)


def log_norms(x):
    with np.errstate(divide="ignore"):
        return np.log(np.linalg.norm(x, axis=-1))


# ----------------------------------------------------------------------------------- published check values


@functools.cache
def check_net():
    """The five-unit LSTM of the portable weights over forty steps, and all its orders."""
    cell, params = lcg_params(lstmx.LSTM, 3, 5, 1.0, forget_bias=1.0)
    history = lstmx.record(cell, params, lcg((40, 3), 5, 1.5))
    return history, lstmx.path_spectrum(history, max_order=40, matrix=True)


def test_the_check_net_has_the_known_orders():
    """V10: the pure highway is 1.3 % of the whole; most of it crosses the hidden state about five times."""
    history, spectrum = check_net()
    whole = spectrum.matrices.sum(axis=0)[5:, 5:]
    np.testing.assert_allclose(np.linalg.norm(whole), 4.489400564e-3, rtol=0, atol=1e-12)
    by_order = [5.824e-5, 2.4285e-4, 6.1196e-4, 8.7464e-4, 1.05154e-3, 1.24616e-3, 1.20501e-3, 8.4161e-4]
    norms = np.exp(spectrum.log_cell_norms)
    np.testing.assert_allclose(norms[:8], by_order, rtol=0, atol=6e-9)
    np.testing.assert_allclose(norms[0], 5.82448852712e-5, rtol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(np.exp(lstmx.highway(history))), norms[0], rtol=1e-13)


def test_the_check_net_has_the_known_expectation_with_a_detached_hidden_state():
    """V11."""
    expected = check_net()[1].expected_detached(0.5)[5:, 5:]
    np.testing.assert_allclose(np.linalg.norm(expected), 2.3082806430961e-4, rtol=1e-12)


def test_all_orders_of_the_check_net_add_up_to_the_whole_jacobian_product():
    history, spectrum = check_net()
    product = np.eye(10)
    for jacobian in np.asarray(jacobians_of(history.cell, history.params, history.inputs, history.initial)):
        product = jacobian @ product
    np.testing.assert_allclose(spectrum.matrices.sum(axis=0), product, rtol=0, atol=1e-15)
    np.testing.assert_allclose(spectrum.log_total, np.log(np.linalg.norm(product)), rtol=1e-12)


# ---------------------------------------------------------------------------------------------- matrix face


@pytest.mark.parametrize("max_order", [0, 1, 3, 7])
def test_matrices_are_those_of_the_expanded_product(max_order):
    made, jacobians = example()
    spectrum = lstmx.path_spectrum(history_of(made, "numpy"), max_order=max_order, matrix=True)
    expected = expand(jacobians, max_order + 1)
    assert_close(spectrum.matrices, expected, 1e-14)
    norms = np.linalg.norm(expected, axis=(1, 2))
    np.testing.assert_allclose(spectrum.log_matrix_norms, np.log(norms[:-1]), rtol=0, atol=1e-13)
    cells = np.linalg.norm(expected[:-1, 3:, 3:], axis=(1, 2))
    np.testing.assert_allclose(np.exp(spectrum.log_cell_norms), cells, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(np.exp(spectrum.log_remainder), norms[-1], rtol=1e-12, atol=1e-15)
    whole = np.linalg.norm(expected.sum(axis=0))
    np.testing.assert_allclose(spectrum.log_total, np.log(whole), rtol=0, atol=1e-13)
    assert_close(spectrum.highway_share, norms[0] / whole, 1e-13)
    assert_close(spectrum.mean_order, np.arange(max_order + 2) @ norms / norms.sum(), 1e-13)


def test_the_orders_add_up_to_the_jacobian_of_the_final_state():
    cell, params, xs, state = example()[0]

    @jax.jit
    def final(flat):
        before = lstmx.LSTMState(flat[:3], flat[3:])
        for x in jnp.asarray(xs):
            before, _ = cell.step(params, before, x)
        return jnp.concatenate(before)

    spectrum = lstmx.path_spectrum(history_of(example()[0], "numpy"), max_order=3, matrix=True)
    expected = jax.jacrev(final)(jnp.asarray(joint(state)))
    assert_close(np.asarray(spectrum.matrices).sum(axis=0), np.asarray(expected), 1e-14)


@pytest.mark.slow
def test_each_sequence_of_a_batch_has_the_matrices_it_has_alone(library):
    made, jacobians = example(batch=(2, 2))
    spectrum = lstmx.path_spectrum(history_of(made, library), max_order=2, matrix=True)
    assert spectrum.matrices.shape == (4, 2, 2, 6, 6)
    for index in np.ndindex(2, 2):
        expected = expand(jacobians[(slice(None), *index)], 3)
        assert_close(spectrum.matrices[(slice(None), *index)], expected, 1e-14)
        norms = np.linalg.norm(expected, axis=(1, 2))
        assert_close(np.exp(spectrum.log_matrix_norms[(slice(None), *index)]), norms[:-1], 1e-13)
        assert_close(np.exp(spectrum.log_remainder[index]), norms[-1], 1e-13)
        cells = np.linalg.norm(expected[:-1, 3:, 3:], axis=(1, 2))
        assert_close(np.exp(spectrum.log_cell_norms[(slice(None), *index)]), cells, 1e-13)


# ---------------------------------------------------------------------------------------------- vector face


@pytest.mark.slow
@pytest.mark.parametrize(("library", "max_order"), [("numpy", 0), ("numpy", 1), ("numpy", 3), ("jax", 3)])
def test_vector_orders_are_the_rows_of_the_expanded_product(library, max_order):
    made, jacobians = example()
    spectrum = lstmx.path_spectrum(history_of(made, library), max_order=max_order)
    before, along = backwards(jacobians, np.repeat([1.0, 0.0], 3), max_order + 1)
    assert_close(joint(spectrum.initial), before, 1e-14)
    norms = np.linalg.norm(along, axis=-1)
    np.testing.assert_allclose(np.exp(spectrum.log_norms), norms[:, :-1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(np.exp(spectrum.log_remainder), norms[:, -1], rtol=1e-12, atol=1e-15)
    whole = np.linalg.norm(along.sum(axis=1), axis=-1)
    np.testing.assert_allclose(spectrum.log_total, np.log(whole), rtol=0, atol=1e-13)
    assert_close(spectrum.highway_share, norms[:, 0] / whole, 1e-13)
    assert_close(spectrum.mean_order, norms @ np.arange(max_order + 2) / norms.sum(axis=1), 1e-13)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("library", "batch"), [("numpy", ()), ("numpy", (2, 2)), ("jax", ())])
def test_the_orders_add_up_to_the_gradient_flow(library, batch):
    history = history_of(example(batch)[0], library)
    spectrum = lstmx.path_spectrum(history, max_order=3)
    flow = lstmx.gradient_flow(history, "last", outputs="norms")
    assert_close(spectrum.log_total, flow.log_norm, 1e-13)
    added = [np.asarray(x).sum(axis=0) for x in spectrum.initial]
    assert_close(added, list(flow.initial), 1e-14)


def test_a_seed_cotangent_is_carried_back_in_place_of_ones(library):
    made, jacobians = example()
    seed = np.random.default_rng(6).normal(size=6)
    given = lstmx.LSTMState(*to(library, (seed[:3], seed[3:])))
    spectrum = lstmx.path_spectrum(history_of(made, library), max_order=3, seed_cotangent=given)
    before, along = backwards(jacobians, seed, 4)
    assert_close(joint(spectrum.initial), before, 1e-14)
    np.testing.assert_allclose(spectrum.log_norms[:, :-1], log_norms(along[:, :3]), rtol=0, atol=1e-12)


def test_a_seed_on_the_cell_state_alone_meets_the_pure_highway(library):
    history = history_of(example()[0], library)
    seed = lstmx.LSTMState(*to(library, (np.zeros(3), np.ones(3))))
    spectrum = lstmx.path_spectrum(history, max_order=3, seed_cotangent=seed)
    assert_close(np.asarray(spectrum.initial.cell[0]), np.exp(lstmx.highway(history)), 1e-14)
    assert not np.any(np.asarray(spectrum.initial.hidden[0]))


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 7), (3, 4), (4, None)])
def test_a_stretch_is_expanded_on_its_own(start, stop):
    made, jacobians = example()
    history = history_of(made, "numpy")
    stop_ = 7 if stop is None else stop
    vector = lstmx.path_spectrum(history, max_order=3, start=start, stop=stop)
    before, along = backwards(jacobians[start:stop_], np.repeat([1.0, 0.0], 3), 4)
    assert vector.log_norms.shape == (stop_ - start, 4)
    assert_close(joint(vector.initial), before, 1e-14)
    np.testing.assert_allclose(np.exp(vector.log_total), np.linalg.norm(along.sum(axis=1), axis=-1), rtol=1e-13)
    matrix = lstmx.path_spectrum(history, 3, start, stop, matrix=True)
    assert_close(matrix.matrices, expand(jacobians[start:stop_], 4), 1e-14)


def test_orders_beyond_the_number_of_steps_are_minus_infinity():
    """Order k takes k steps: from h_T back, the last step's own crossing included."""
    history = history_of(example()[0], "numpy")[:3]
    spectrum = lstmx.path_spectrum(history, max_order=5)
    for t in range(3):
        steps = 2 - t
        assert np.isfinite(spectrum.log_norms[t, : steps + 1]).all()
        assert np.isneginf(spectrum.log_norms[t, steps + 1 :]).all()
    assert np.isneginf(spectrum.log_remainder).all()
    matrix = lstmx.path_spectrum(history, max_order=5, matrix=True)
    assert np.isfinite(matrix.log_matrix_norms[:4]).all()
    assert np.isneginf(matrix.log_matrix_norms[4:]).all()
    assert np.isneginf(matrix.log_remainder)
    assert not np.any(np.asarray(matrix.matrices[4:]))


def test_a_single_unit_at_a_single_step_has_orders_nought_and_one():
    cell, params, xs, state = draw_pass(lstmx.LSTM, length=1, features=1, hidden=1)
    jacobian = np.asarray(jacobians_of(cell, params, xs, state))[0]
    history = lstmx.record(cell, params, xs, state)
    spectrum = lstmx.path_spectrum(history, max_order=1, matrix=True)
    expected = np.zeros((3, 2, 2))
    expected[0, :, 1], expected[1, :, 0] = jacobian[:, 1], jacobian[:, 0]
    assert_close(spectrum.matrices, expected, 1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(2, 2)])
def test_each_sequence_of_a_batch_has_the_orders_it_has_alone(library, batch):
    history = history_of(example(batch)[0], library)
    spectrum = lstmx.path_spectrum(history, max_order=3)
    assert spectrum.log_norms.shape == (7, 4, *batch)
    for index in np.ndindex(*batch):
        alone = lstmx.path_spectrum(history.sequence(*index), max_order=3)
        assert_close(spectrum.log_norms[(slice(None), slice(None), *index)], alone.log_norms, 1e-12)
        for name in ("log_remainder", "log_total", "highway_share", "mean_order"):
            assert_close(getattr(spectrum, name)[(slice(None), *index)], getattr(alone, name), 1e-12)
        whole = jax.tree.map(lambda x, i=index: x[(slice(None), *i)], spectrum.initial)
        assert_close(whole, alone.initial, 1e-13)


@pytest.mark.slow
def test_numpy_and_jax_expand_alike():
    made, _ = example((2, 2))
    for matrix in (False, True):
        order = 2 if matrix else 3
        numpy, jaxed = (
            lstmx.path_spectrum(history_of(made, library), order, matrix=matrix) for library in LIBRARIES
        )
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(numpy))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(jaxed))
        assert_close(jaxed, numpy, 1e-13)


def test_a_history_of_states_has_the_same_orders_as_one_of_everything():
    cell, params, xs, state = example()[0]
    spectra = [lstmx.path_spectrum(lstmx.record(cell, params, xs, state, keep=keep)) for keep in ("all", "states")]
    assert_close(spectra[1], spectra[0], 1e-13)


@pytest.mark.parametrize("matrix", [False, True])
def test_the_orders_do_not_depend_on_the_chunks_they_are_worked_in(monkeypatch, matrix):
    history = random_history(lstmx.LSTM, length=11)
    whole = lstmx.path_spectrum(history, max_order=3, matrix=matrix)
    rows = 5 * 8 * (8 if matrix else 1)  # numbers of all orders' cotangents
    monkeypatch.setattr(sys.modules["lstmx.gradients.paths"], "_CHUNK_ELEMENTS", 3 * rows)
    assert_close(lstmx.path_spectrum(history, max_order=3, matrix=matrix), whole, 1e-13)


@pytest.mark.parametrize("matrix", [False, True])
def test_a_progress_bar_changes_no_number(matrix, capsys):
    history = random_history(lstmx.LSTM, length=70)
    shown = lstmx.path_spectrum(history, max_order=2, matrix=matrix, progress=True)
    assert_close(shown, lstmx.path_spectrum(history, max_order=2, matrix=matrix), 1e-13)
    assert "70" in capsys.readouterr().err


def test_a_spectrum_is_a_tree_and_can_be_computed_within_jit():
    history = history_of(example()[0], "jax")
    spectrum = jax.jit(lambda history: lstmx.path_spectrum(history, max_order=3))(history)
    assert isinstance(spectrum, lstmx.PathSpectrum)
    assert_close(spectrum, lstmx.path_spectrum(history, max_order=3), 1e-13)


# ------------------------------------------------------------------------------------ beyond the float range


def two_lanes(steps, dtype, library, retained, crossing):
    """One unit with zero inputs at the zero state: f = i = o = ½ save for what the biases say, g = 0, c = 0.

    There ∂c_t/∂c_{t-1} = f, ∂c_t/∂h_{t-1} = i U_g, and h_t = o c_t to first order.
    """
    cell = lstmx.LSTM(1, 1)
    params = lstmx.LSTMParams(
        np.zeros((1, 4), dtype), np.array([[0, 0, crossing, 0]], dtype), np.array([0, retained, 0, 0], dtype)
    )
    return lstmx.record(cell, *to(library, (params, np.zeros((steps, 1), dtype))))


def two_lane_orders(steps, retained, crossing, max_order):
    """Closed form in 60 digits: from h_T, the log norms at step 0 by order, the remainder and the total.

    The joint Jacobian is [[ψ/2, f/2], [ψ, f]] with ψ = U_g/2: what arrives is the cotangent (a, b) of (h, c), and
    one step back b' = f (b + a/2) keeps the order and a' = ψ (b + a/2) gains one.
    """
    with mpmath.workdps(60):
        f = 1 / (1 + mpmath.exp(-mpmath.mpf(retained)))
        psi = mpmath.mpf(crossing) / 2
        a = [mpmath.mpf(0)] * (steps + 2)
        b = list(a)
        a[0] = mpmath.mpf(1)
        for _ in range(steps - 1):
            through = [y + x / 2 for x, y in zip(a, b, strict=True)]
            a = [mpmath.mpf(0)] + [psi * x for x in through[:-1]]
            b = [f * x for x in through]

        def log(x, y):
            size = mpmath.sqrt(x**2 + y**2)
            return float(mpmath.log(size)) if size else -np.inf

        orders = [log(x, y) for x, y in zip(a, b, strict=True)]
        rest = log(mpmath.fsum(a[max_order + 1 :]), mpmath.fsum(b[max_order + 1 :]))
        return np.array(orders[: max_order + 1]), rest, log(mpmath.fsum(a), mpmath.fsum(b))


@pytest.mark.sample(1)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("retained", "crossing"),
    [(-20.0, 4.0), (5.0, 1e-6), (-20.0, 1e-3), (2.0, 4e4)],
    ids=["order 0 far below", "higher orders far below", "all vanish", "explodes"],
)
def test_orders_far_apart_and_out_of_range_keep_their_log_norms(library, dtype, retained, crossing):
    steps, max_order = 60, 5
    history = two_lanes(steps, dtype, library, retained, crossing)
    stored = (float(np.dtype(dtype).type(x)) for x in (retained, crossing))
    orders, rest, whole = two_lane_orders(steps, *stored, max_order)
    assert np.ptp(orders) > 60
    spectrum = lstmx.path_spectrum(history, max_order=max_order)
    tolerance = {"rtol": 2e-6, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-13, "atol": 1e-12}
    np.testing.assert_allclose(spectrum.log_norms[0], orders, **tolerance)
    np.testing.assert_allclose(spectrum.log_remainder[0], rest, **tolerance)
    np.testing.assert_allclose(spectrum.log_total[0], whole, **tolerance)
    for x in jax.tree.leaves(spectrum):
        assert not np.isnan(x).any()


def test_the_highway_order_is_right_thousands_of_nats_below_the_others():
    """1500 steps at forget bias −20: order 0 is e^−30000, the whole e^400."""
    steps = 1500
    history = two_lanes(steps, "float64", "numpy", -20.0, 5.2)
    spectrum = lstmx.path_spectrum(history, max_order=1, matrix=True)
    softplus = np.logaddexp(0, 20.0)
    np.testing.assert_allclose(spectrum.log_cell_norms[0], -steps * softplus, rtol=1e-13)
    np.testing.assert_allclose(lstmx.highway(history), [-steps * softplus], rtol=1e-13)
    assert spectrum.log_total > 390


def test_an_exact_zero_has_no_share_and_no_mean_order(library):
    history = history_of(example()[0], library)
    zero = lstmx.LSTMState(*to(library, (np.zeros(3), np.zeros(3))))
    spectrum = lstmx.path_spectrum(history, max_order=3, seed_cotangent=zero)
    assert np.isneginf(spectrum.log_norms).all()
    assert np.isneginf(spectrum.log_remainder).all()
    assert np.isneginf(spectrum.log_total).all()
    assert np.isnan(spectrum.highway_share).all()
    assert np.isnan(spectrum.mean_order).all()


# ------------------------------------------------------------------------------------------------- detaching


@functools.cache
def mean_over_all_detachments(length, probability):
    """∂⟨ones, h_T⟩/∂(h_0, c_0) and ∂(h, c)_T/∂(h, c)_0 averaged over every pattern of stop_gradient, by weight."""
    cell, params, xs, state = draw_pass(lstmx.LSTM, length=length, features=2, hidden=2, seed=9)
    patterns = jnp.array(list(itertools.product([False, True], repeat=length)))

    def final(flat, pattern):
        def step(before, item):
            x, detached = item
            hidden = jnp.where(detached, jax.lax.stop_gradient(before.hidden), before.hidden)
            return cell.step(params, before._replace(hidden=hidden), x)[0], None

        before = lstmx.LSTMState(flat[:2], flat[2:])
        return jnp.concatenate(jax.lax.scan(step, before, (jnp.asarray(xs), pattern))[0])

    flat = jnp.asarray(joint(state))
    jacobians = np.asarray(jax.jit(jax.vmap(jax.jacrev(final), in_axes=(None, 0)))(flat, patterns))
    detached = np.asarray(patterns).sum(axis=1)
    weights = probability**detached * (1 - probability) ** (length - detached)
    return (cell, params, xs, state), np.tensordot(weights, jacobians, axes=1)


@pytest.mark.sample(1)
@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_the_expected_gradient_is_the_mean_over_every_pattern_of_detachment(library, probability):
    made, mean = mean_over_all_detachments(6, probability)
    history = history_of(made, library)
    if library == "numpy":
        matrix = lstmx.path_spectrum(history, max_order=6, matrix=True).expected_detached(probability)
        assert_close(matrix, mean, 1e-14)
    vector = lstmx.path_spectrum(history, max_order=6).expected_detached(probability)
    assert isinstance(vector, lstmx.LSTMState)
    assert_close(joint(vector), mean[:2].sum(axis=0), 1e-14)


def test_the_expected_gradient_leaves_out_the_remainder(library):
    history = history_of(example()[0], library)
    spectrum = lstmx.path_spectrum(history, max_order=3)
    for p in (0.0, 0.3):
        made = joint(spectrum.expected_detached(p))
        expected = sum((1 - p) ** k * joint(spectrum.initial)[k] for k in range(4))
        assert_close(made, expected, 1e-15)


def test_a_hidden_state_always_detached_leaves_the_highway():
    history = history_of(example()[0], "numpy")
    matrix = lstmx.path_spectrum(history, max_order=3, matrix=True).expected_detached(1)
    assert_close(np.asarray(matrix)[3:, 3:], np.diag(np.exp(lstmx.highway(history))), 1e-14)


@pytest.mark.parametrize("probability", [-0.1, 1.5, np.nan])
def test_the_probability_of_detaching_is_between_nought_and_one(probability):
    spectrum = lstmx.path_spectrum(history_of(example()[0], "numpy"), max_order=1)
    with pytest.raises(ValueError, match=r"probability is .*; expected a number between 0 and 1"):
        spectrum.expected_detached(probability)


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("kind", [lstmx.GRU, lstmx.SimpleRNN])
def test_a_cell_without_a_cell_state_has_no_orders(kind, library):
    match = rf"{kind.__name__}\(.*\) has no cell state, so there is no highway to separate"
    with pytest.raises(ValueError, match=match):
        lstmx.path_spectrum(random_history(kind, library))


def wide_history(hidden):
    cell = lstmx.LSTM(1, hidden)
    params = lstmx.LSTMParams(*(np.zeros(shape) for shape in cell.parameter_shapes()))
    return lstmx.record(cell, params, np.zeros((1, 1)))


def test_too_many_units_for_a_matrix_are_refused_and_not_for_a_vector():
    history = wide_history(257)
    with pytest.raises(
        ValueError, match="matrix=True takes a joint state of at most 512 numbers; this one has 514"
    ):
        lstmx.path_spectrum(history, matrix=True)
    assert lstmx.path_spectrum(history, max_order=1).log_norms.shape == (1, 2)


def test_a_seed_with_a_matrix_is_refused():
    history = random_history(lstmx.LSTM)
    with pytest.raises(ValueError, match="seed_cotangent has no meaning with matrix=True"):
        lstmx.path_spectrum(history, seed_cotangent=history.final, matrix=True)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_order": -1}, ValueError, "max_order is -1; expected an integer of at least 0"),
        ({"max_order": 2.0}, TypeError, r"max_order is 2\.0; expected an integer"),
        ({"max_order": True}, TypeError, "max_order is True"),
        ({"start": 7}, ValueError, "start=7, stop=None; expected 0 <= start < stop <= 7"),
        ({"start": 4, "stop": 4}, ValueError, "start=4, stop=4"),
        ({"stop": 8}, ValueError, "start=0, stop=8"),
        ({"start": -2}, ValueError, "start is -2"),
        ({"start": 0.5}, TypeError, r"start is 0\.5"),
        ({"seed_cotangent": np.ones(4)}, TypeError, "seed_cotangent is a ndarray; .* expects LSTMState"),
        (
            {"seed_cotangent": lstmx.LSTMState(np.ones(4), np.ones(3))},
            ValueError,
            r"seed_cotangent\.cell has shape \(3,\); expected .* \(4,\)",
        ),
        (
            {"seed_cotangent": lstmx.LSTMState(np.ones(4, "float32"), np.ones(4))},
            TypeError,
            r"seed_cotangent\.hidden is float32",
        ),
    ],
    ids=str,
)
def test_options_of_another_kind_or_range_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        lstmx.path_spectrum(random_history(lstmx.LSTM), **options)


def test_a_seed_that_is_not_finite_is_refused():
    seed = lstmx.LSTMState(np.array([0, np.nan, 0, 0]), np.zeros(4))
    with pytest.raises(ValueError, match="seed_cotangent"):
        lstmx.path_spectrum(random_history(lstmx.LSTM), seed_cotangent=seed)


@pytest.mark.parametrize("matrix", [False, True])
def test_numbers_that_are_not_finite_are_named(library, matrix):
    cell, params, xs, state = draw_pass(lstmx.LSTM)
    xs[2, 1] = np.nan
    history = history_of((cell, params, xs, state), library)
    with pytest.raises(ValueError, match="inputs is nan first at step 2, feature 1; expected finite"):
        lstmx.path_spectrum(history, matrix=matrix)
    broken = params._replace(recurrent_kernel=params.recurrent_kernel * np.inf)
    history = random_history(lstmx.LSTM, library)
    history = lstmx.History(cell, to(library, broken), history.initial, *history.rows)
    with pytest.raises(ValueError, match=r"params\.recurrent_kernel holds NaN or infinity"):
        lstmx.path_spectrum(history, matrix=matrix)


@pytest.mark.sample(1)
def test_an_infinite_cell_state_is_refused(library):
    cell, params, xs, state = draw_pass(lstmx.LSTM)
    state.cell[1] = np.inf
    history = history_of((cell, params, xs, state), library)
    with pytest.raises(ValueError, match=r"cell.* is inf first at step 0, unit 1; expected finite"):
        lstmx.path_spectrum(history)
