"""`cycles` against maps whose cycles are known in closed form, and against a plain loop."""

import jax
import numpy as np
import pytest
from reference import draw_params, draw_state, is_in, plain_step, to

import lstmx

H = 0.9575040240772688  # h = tanh 2 h


def units(*weights, dtype="float64"):
    """Tanh units that do not see each other."""
    size = len(weights)
    params = lstmx.SimpleRNNParams(np.zeros((1, size)), np.diag(weights), np.zeros(size))
    return lstmx.SimpleRNN(1, size), jax.tree.map(lambda x: x.astype(dtype), params)


def some(size, number=12, seed=0, dtype="float64"):
    return lstmx.SimpleRNNState(np.random.default_rng(seed).normal(size=(number, size)).astype(dtype))


@pytest.mark.sample(1)
@pytest.mark.parametrize("number", [1, 12])
def test_a_unit_that_changes_its_sign_has_one_cycle_of_two(library, number):
    """h ← tanh(−2 h): ±h* with h* = tanh 2 h*, whose multiplier is (2 (1 − h*²))²."""
    cell, params = units(-2.0)
    found = lstmx.cycles(cell, *to(library, (params, None)), 2, to(library, some(1, number)))
    np.testing.assert_allclose(found.states.hidden, [[[H], [-H]]], rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.multipliers, [[4 * (1 - H**2) ** 2]], rtol=0, atol=1e-11)
    assert found.stable.all()
    assert is_in(library, found.states)
    assert (found.index_sum, found.period, len(found)) == (1, 2, 1)
    assert str(found).startswith("1 cycle of period 2, 1 stable, from ")
    assert "index sum 1" in str(found)
    assert repr(found) == "Cycles(1 of period 2, index sum 1)"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_two_such_units_have_four_cycles_of_two(dtype):
    """Of the nine points of the map of two steps all but 0 are in cycles of two."""
    cell, params = units(-2.0, -2.0, dtype=dtype)
    found = lstmx.cycles(cell, params, None, 2, some(2, dtype=dtype))
    assert found.unstable_modes.tolist() == [0, 0, 1, 1]
    expected = {(1, 1), (1, -1), (1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0)}
    assert {tuple(row) for row in np.round(found.states.hidden / H).reshape(-1, 2)} == expected
    np.testing.assert_allclose(found.states.hidden[:, 1], -found.states.hidden[:, 0], rtol=0, atol=1e-3)
    assert found.index_sum == 1


@pytest.mark.slow
def test_what_comes_back_earlier_is_no_cycle_of_that_period():
    cell, params = units(-2.0)
    for period in (3, 4, 6):
        found = lstmx.cycles(cell, params, None, period, some(1))
        assert (len(found), found.index_sum) == (0, 1)
        assert found.states.hidden.shape == (0, period, 1)
    assert len(lstmx.cycles(cell, params, None, 1, some(1))) == 1


@pytest.mark.slow
def test_a_ring_of_units_has_cycles_of_its_length():
    """h₀ ← tanh 2h₂, h₁ ← tanh 2h₀, h₂ ← tanh 2h₁: each of 27 points comes back after three."""
    kernel = 2 * np.eye(3)[[1, 2, 0]]
    params = lstmx.SimpleRNNParams(np.zeros((1, 3)), kernel, np.zeros(3))
    found = lstmx.cycles(lstmx.SimpleRNN(1, 3), params, None, 3, some(3, 20))
    assert len(found) == (27 - 3) // 3
    assert sorted(found.unstable_modes) == [0, 0, 1, 1, 1, 1, 2, 2]
    hidden = np.asarray(found.states.hidden)
    np.testing.assert_allclose(np.roll(hidden, -1, axis=1), np.roll(hidden, 1, axis=2), rtol=0, atol=1e-10)
    assert found.index_sum == 1


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN])
def test_every_cycle_goes_around(kind, seed):
    draws = np.random.default_rng(seed)
    cell = kind(2, 3)
    params, x = draw_params(cell, draws, scale=1.6), draws.normal(size=2)
    for period in (1, 2):
        found = lstmx.cycles(cell, params, x, period, draw_state(cell, draws, (8,)), rounds=2)
        now = cell.state_type(*(field[:, 0] for field in found.states))
        for step in range(period):
            now = plain_step(cell, params, now, x)[0] if len(found) else now
            for field, around in zip(now, found.states, strict=True):
                np.testing.assert_allclose(field, around[:, (step + 1) % period], rtol=0, atol=1e-8)


def test_candidates_that_lead_to_a_part_say_so():
    """Beside 0 no other point is found by Newton's method, which stays there."""
    cell, params = units(-1.5)
    found = lstmx.cycles(cell, params, None, 2, lstmx.SimpleRNNState(np.zeros((2, 1))), rounds=0)
    assert (len(found), found.index_sum) == (0, -1)
    assert "WARNING: index sum -1" in str(found)
    assert "Try rounds=20" in str(found)
    found = lstmx.cycles(cell, params, None, 2, lstmx.SimpleRNNState(np.zeros((2, 1))), rounds=20)
    assert (len(found), found.index_sum) == (1, 1)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"period": 0}, ValueError, "period is 0; expected an integer of at least 1"),
        ({"period": 2.0}, TypeError, r"period is 2\.0; expected an integer"),
        ({"tolerance": 1e-40}, ValueError, "tolerance is 1e-40; rounding leaves about"),
        ({"candidates": None}, TypeError, "candidates is None; expected a recorded pass"),
        ({"x": np.zeros(3)}, ValueError, r"x has shape \(3,\)"),
    ],
)
def test_what_is_none_is_refused(options, error, text):
    cell, params = units(-2.0)
    given = {"x": None, "period": 2, "candidates": some(1)} | options
    with pytest.raises(error, match=text):
        lstmx.cycles(cell, params, **given)
