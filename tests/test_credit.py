"""`credit_error`: by step, lag and order against sums over all pairs of steps, from derivatives that JAX takes."""

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from jax.flatten_util import ravel_pytree
from reference import to

import lstmx

T, D, H = 6, 2, 3
STRAIGHT = (np.arange(2 * H) >= H).astype(float)


def example(seed=0):
    cell = lstmx.LSTM(D, H)
    draws = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: draws.normal(0, 0.7, x.shape), cell.init(draws, "float64"))
    return cell, params, draws.normal(size=(T, D)), draws.normal(size=(T, H))


def steps_of(params, xs):
    """J_t and ∂⁺s_t/∂θ of a plain step, [T, S, S] and [T, S, P]."""
    theta, unflat = ravel_pytree(params)
    step = lambda theta, s, x: plain.lstm(unflat(theta), s, x)  # noqa: E731
    derivatives = jax.jit(lambda s, x: [step(theta, s, x), *jax.jacrev(step, (1, 0))(theta, s, x)])
    s, found = jnp.zeros(2 * H), []
    for x in xs:
        s, J, direct = derivatives(s, x)
        found.append((np.asarray(J), np.asarray(direct)))
    return [np.array(x) for x in zip(*found, strict=True)]


def parts(params, xs, weights, mask):
    """What each pair of steps adds by each number of crossings, [T, T, T + 1, P], of a masked influence."""
    J, direct = steps_of(params, xs)
    found = np.zeros((T, T, T + 1, direct.shape[-1]))
    for s in range(T):
        M = np.zeros((T + 1, *direct.shape[1:]))
        M[0] = direct[s] * mask
        for t in range(s, T):
            if t > s:
                kept, crossed = (J[t] * STRAIGHT) @ M, (J[t] * (1 - STRAIGHT)) @ M
                M = kept * mask
                M[1:] += crossed[:-1] * mask
            found[t, s] = weights[t] @ M[:, :H]
    return found


def agrees(found, true, near):
    norms = np.linalg.norm(true, axis=-1), np.linalg.norm(near, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(found.ratio, norms[1] / norms[0], atol=1e-9)
        cosine = (true * near).sum(axis=-1) / (norms[0] * norms[1])
        np.testing.assert_allclose(found.cosine, cosine, atol=1e-9)
        np.testing.assert_allclose(found.log_norm, np.log(norms[0]), atol=1e-9)
        share = np.where(norms[1] > 0, (true * near).sum(axis=-1) / norms[0] ** 2, 0)
        np.testing.assert_allclose(found.share, share, atol=1e-9)


def all_agree(found, true, near, lags, orders):
    """Every number of a result, from parts [T, T, T + 1, P] by loss step, step and crossings."""
    whole, approximate = true.sum(axis=(0, 1, 2)), near.sum(axis=(0, 1, 2))
    agrees(found.whole, whole, approximate)
    agrees(found.total, whole, approximate)
    agrees(found.by_step, true.sum(axis=(1, 2)), near.sum(axis=(1, 2)))
    by_lag, by_order = [], []
    for x in (true, near):
        lagged = [sum(x[t, t - k].sum(axis=0) for t in range(k, T)) for k in range(T)]
        by_lag.append(np.array([*lagged[:lags], sum(lagged[lags:])]))
        ordered = x.sum(axis=(0, 1))
        by_order.append(np.array([*ordered[: orders + 1], ordered[orders + 1 :].sum(axis=0)]))
    agrees(found.by_lag, *by_lag)
    agrees(found.by_order, *by_order)


@pytest.mark.parametrize("library", ["numpy", pytest.param("jax", marks=pytest.mark.slow)])
def test_snap1_beside_the_true_gradient(library):
    cell, params, xs, weights = example()
    true = parts(params, xs, weights, 1)
    near = parts(params, xs, weights, (steps_of(params, xs)[1] != 0).any(axis=0))
    given = to(library, (params, xs, weights))
    found = lstmx.credit_error(lstmx.record(cell, *given[:2]), given[2], lags=3, max_order=2)
    all_agree(found, true, near, 3, 2)
    np.testing.assert_allclose(found.by_order.share[0], 1)  # the cell state never leaves its unit


def test_a_window_beside_the_true_gradient():
    cell, params, xs, weights = example()
    true, near = parts(params, xs, weights, 1), parts(params, xs, weights, 1)
    lag = np.subtract.outer(np.arange(T), np.arange(T))
    near[lag >= 2] = 0
    found = lstmx.credit_error(lstmx.record(cell, params, xs), weights, "truncated", window=2, lags=4, max_order=1)
    all_agree(found, true, near, 4, 1)


def test_the_whole_influence_has_no_error():
    cell, params, xs, _ = example()
    history = lstmx.record(cell, params, np.stack([xs, 2 * xs], axis=1), lengths=np.array([T, T - 2]))
    for loss in ("last", "sum"):
        found = lstmx.credit_error(history, loss, "rtrl", lags=2)
        for one in (found.whole, found.total, found.by_step, found.by_lag, found.by_order):
            known = np.isfinite(one.log_norm)
            np.testing.assert_allclose(one.cosine[known], 1)
            np.testing.assert_allclose(one.ratio[known], 1)
            assert np.isnan(one.ratio[~known]).all()
        assert found.whole.cosine.shape == (2,)
    alone = lstmx.credit_error(history.pieces()[1], "sum", lags=2)
    batch = lstmx.credit_error(history, "sum", lags=2)
    np.testing.assert_allclose(batch.by_lag.share[:, 1], alone.by_lag.share)


def test_sparse_is_judged_on_the_weights_that_there_are():
    cell, params, xs, weights = example()
    there = np.random.default_rng(1).random((H, 4 * H)) < 0.3
    params = params._replace(recurrent_kernel=params.recurrent_kernel * there)
    history = lstmx.record(cell, params, xs)
    assert float(lstmx.credit_error(history, weights, "sparse", order=20).total.cosine) == pytest.approx(
        1, abs=1e-12
    )
    near = lstmx.credit_error(history, weights, "sparse", order=1)
    found = lstmx.online(cell, params, xs, weights, "sparse", order=1).parameters
    true = lstmx.backward(history, weights).parameters
    true = true._replace(recurrent_kernel=true.recurrent_kernel * there)
    found, true = (np.concatenate([np.ravel(x) for x in tree]) for tree in (found, true))
    agrees(near.total, true, found)


def test_a_cell_without_a_cell_state_has_no_orders():
    gru = lstmx.GRU(D, H)
    history = lstmx.record(gru, gru.init(np.random.default_rng(0)), np.ones((T, D), "float32"))
    found = lstmx.credit_error(history, lags=2)
    assert found.by_order is None
    assert "crossings" not in str(found)
    assert "by lag: of the true part it has 0: 100.0%" in found.summary()


def test_what_it_does_not_take_is_refused_in_words():
    cell, params, xs, _ = example()
    history = lstmx.record(cell, params, xs)
    with pytest.raises(ValueError, match="method is 'uoro'; expected one of"):
        lstmx.credit_error(history, method="uoro")
    with pytest.raises(ValueError, match="lags and steps of history make"):
        lstmx.credit_error(history, lags=2**24)
    with pytest.raises(ValueError, match="window is 9; expected at most the 6 steps of the pass"):
        lstmx.credit_error(history, method="truncated", window=9)
