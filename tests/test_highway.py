"""`highway`: the product of the retention gates in logs, exact over a million steps."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, draw_pass, random_history, to

import lstmx


def constant_gates(forget_bias, steps, dtype="float64", hidden=2, library="numpy"):
    """The history of an LSTM with all weights and states zero, put together without a pass over its steps."""
    cell = lstmx.LSTM(1, hidden)
    bias = np.zeros(4 * hidden, dtype)
    bias[hidden : 2 * hidden] = forget_bias
    params = lstmx.LSTMParams(np.zeros((1, 4 * hidden), dtype), np.zeros((hidden, 4 * hidden), dtype), bias)
    zeros = np.zeros((steps, hidden), dtype)
    state = lstmx.LSTMState(zeros[0], zeros[0])
    parts = (params, state, np.zeros((steps, 1), dtype), lstmx.LSTMState(zeros, zeros))
    return lstmx.History(cell, *to(library, parts), to(library, np.broadcast_to(bias, (steps, 4 * hidden))))


def test_constant_gates_are_put_together_as_a_pass_leaves_them(library):
    history = constant_gates(1.5, 6, library=library)
    recorded = lstmx.record(history.cell, history.params, history.inputs)
    assert_close(history, recorded, 0)


@pytest.mark.parametrize(
    ("forget_bias", "per_step", "time_scale"),
    [
        (0, -0.6931471805599453, 1.442695),
        (1, -0.3132616875182228, 3.192219),
        (2, -0.1269280110429725, 7.878482),
        (3, -0.0485873515737421, 20.581488),
        (5, -0.0067153484891181, 148.912599),
    ],
)
def test_a_constant_forget_gate_loses_softplus_of_its_bias_each_step(library, forget_bias, per_step, time_scale):
    """V05 and V06."""
    made = lstmx.highway(constant_gates(forget_bias, 50, library=library))
    np.testing.assert_allclose(made, np.full(2, 50 * per_step), rtol=1e-12)
    np.testing.assert_allclose(-50 / made, time_scale, rtol=0, atol=1e-6)


def test_a_million_steps_at_bias_five_lose_the_known_amount():
    made = lstmx.highway(constant_gates(5, 1_000_000, hidden=1))
    np.testing.assert_allclose(made, [-6715.348489118], rtol=1e-12)


@pytest.mark.parametrize("keep", ["all", "states"])
def test_a_million_float32_steps_at_bias_13_8_keep_their_digits(library, keep):
    """The gate itself is within 17 roundings of 1 there, and a running float32 sum would be off by a percent."""
    history = constant_gates(13.8, 1_000_000, "float32", hidden=1, library=library)
    if keep == "states":
        history = dataclasses.replace(history, stored=None)
    made = lstmx.highway(history)
    bias = np.float64(np.float32(13.8))
    np.testing.assert_allclose(made, [-1_000_000 * np.log1p(np.exp(-bias))], rtol=1e-12)
    assert made.dtype == np.float64


@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_the_highway_is_the_sum_of_the_logs_of_the_retention_gates(kind, library, batch):
    history = random_history(kind, library, batch=batch, length=12)
    gates = np.asarray(history.forget_gate if kind is lstmx.LSTM else history.update_gate)
    made = lstmx.highway(history)
    assert isinstance(made, np.ndarray)
    assert_close(made, np.log(gates).sum(axis=0), 1e-14)
    assert_close(lstmx.highway(history, 3, 9), np.log(gates[3:9]).sum(axis=0), 1e-14)


@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU])
@pytest.mark.parametrize(("first", "middle", "last"), [(0, 1, 12), (0, 7, 11), (2, 3, 4)])
def test_two_stretches_that_meet_add_up_to_the_whole(kind, library, first, middle, last):
    history = random_history(kind, library, length=12)
    parts = lstmx.highway(history, first, middle) + lstmx.highway(history, middle, last)
    assert_close(parts, lstmx.highway(history, first, last), 1e-14)


def test_stretches_of_any_length_add_up_whatever_the_chunks(monkeypatch):
    history = random_history(lstmx.LSTM, length=23)
    whole = lstmx.highway(history, 1, 22)
    monkeypatch.setattr(sys.modules["lstmx.gradients.highway"], "_CHUNK_STEPS", 4)
    assert_close(lstmx.highway(history, 1, 22), whole, 1e-14)


def test_a_single_step_of_a_single_unit_has_a_highway(library):
    history = random_history(lstmx.LSTM, library, length=1, hidden=1)
    assert_close(lstmx.highway(history), np.log(np.asarray(history.forget_gate[0])), 1e-15)


def test_the_highway_keeps_digits_where_a_gate_rounds_to_nought_or_one(library):
    for bias in (-800.0, 40.0):
        made = lstmx.highway(constant_gates(bias, 3, library=library))
        expected = 3 * bias if bias < 0 else -3 * np.exp(-bias)
        np.testing.assert_allclose(made, np.full(2, expected), rtol=1e-15)


@pytest.mark.sample(1)
def test_the_highway_is_the_slope_of_the_cell_state_when_nothing_recurs(library):
    """∂c_T/∂c_0 by autodiff of a plain loop."""
    cell, params, xs, state = draw_pass(lstmx.LSTM)
    params = params._replace(recurrent_kernel=0 * params.recurrent_kernel)

    def last_cell(c):
        before = to("jax", state)._replace(cell=c)
        for x in jnp.asarray(xs):
            before, _ = cell.step(params, before, x)
        return before.cell

    jacobian = np.asarray(jax.jacrev(last_cell)(jnp.asarray(state.cell)))
    made = lstmx.highway(lstmx.record(cell, *to(library, (params, xs, state))))
    assert_close(np.diag(np.exp(made)), jacobian, 1e-14)


def test_the_highway_can_be_computed_within_jit():
    history = random_history(lstmx.LSTM, "jax")
    made = jax.jit(lambda history: lstmx.highway(history, 1, 6))(history)
    assert isinstance(made, jax.Array)
    assert_close(made, lstmx.highway(history, 1, 6), 1e-14)


def test_a_cell_without_a_retention_gate_has_no_highway(library):
    with pytest.raises(ValueError, match="a SimpleRNN has no highway"):
        lstmx.highway(random_history(lstmx.SimpleRNN, library))


@pytest.mark.parametrize(
    ("start", "stop", "error", "match"),
    [
        (3, 3, ValueError, "start=3, stop=3; expected 0 <= start < stop <= 7"),
        (5, 2, ValueError, "start=5, stop=2; expected"),
        (7, None, ValueError, "start=7, stop=None; expected"),
        (0, 8, ValueError, "start=0, stop=8; expected 0 <= start < stop <= 7"),
        (0, 0, ValueError, "start=0, stop=0"),
        (-1, 3, ValueError, "start is -1; expected an integer of at least 0"),
        (0, -1, ValueError, "stop is -1; expected"),
        (1.0, 3, TypeError, r"start is 1\.0; expected an integer"),
        (0, True, TypeError, "stop is True; expected an integer"),
        ("0", 3, TypeError, "start is '0'; expected an integer"),
    ],
)
def test_steps_outside_the_history_are_refused(start, stop, error, match):
    with pytest.raises(error, match=match):
        lstmx.highway(random_history(lstmx.GRU), start, stop)
