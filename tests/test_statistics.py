"""Gate statistics: known numbers, the materialised gates, chunks, long sequences, and what cannot be had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, draw_pass, is_in, lcg, lcg_params, random_history, to

import lstmx
from lstmx import statistics

GATED = [lstmx.LSTM, lstmx.GRU]
gated = pytest.mark.parametrize("kind", GATED, ids=lambda kind: kind.__name__)


def constant(library, bias, length, dtype="float64"):
    """An LSTM without weights, whose forget pre-activation is `bias` at every step."""
    cell = lstmx.LSTM(1, len(bias))
    zeros = np.zeros(len(bias))
    params = lstmx.LSTMParams(
        np.zeros((1, 4 * len(bias))),
        np.zeros((len(bias), 4 * len(bias))),
        np.concatenate([zeros, bias, zeros, zeros]),
    )
    params = to(library, jax.tree.map(lambda leaf: leaf.astype(dtype), params))
    return lstmx.record(cell, params, np.zeros((length, 1), dtype), keep="states")


# ----------------------------------------------------------------------------------------- known numbers


@pytest.mark.sample(1)
def test_the_known_network_has_its_statistics(library):
    cell, params = lcg_params(lstmx.LSTM, 3, 5, 1.0, forget_bias=1)
    history = lstmx.record(cell, *to(library, (params, lcg((40, 3), 5, 1.5))))
    forget = history.preactivations[:, 5:10]
    assert (float(forget.min()), float(forget.max())) == pytest.approx((-1.5972690905, 3.2529111827), abs=1e-10)

    found = lstmx.gate_statistics(history)
    forget, enter, leave = (found[name] for name in ("forget_gate", "input_gate", "output_gate"))
    span = (float(forget.min.min()), float(forget.max.max()))
    assert span == pytest.approx((0.1683636433, 0.9627775811), abs=1e-10)
    np.testing.assert_allclose(forget.right, [0.1, 0.125, 0, 0.225, 0.15], rtol=1e-15)
    np.testing.assert_array_equal(forget.left, 0)
    np.testing.assert_allclose(enter.left, [0, 0.075, 0, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(enter.right, [0, 0, 0, 0.025, 0], rtol=1e-15)
    np.testing.assert_allclose(leave.left, [0.05, 0, 0, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(leave.right, [0.025, 0.025, 0.025, 0, 0], rtol=1e-15)
    geometric = [2.35178986, 2.80147676, 3.93792888, 2.25603369, 3.98255163]
    np.testing.assert_allclose(found.timescale, geometric, rtol=0, atol=5e-9)
    arithmetic = [2.60678373, 3.03297795, 4.00428370, 2.67680129, 4.21512238]
    np.testing.assert_allclose(found.timescale_arithmetic, arithmetic, rtol=0, atol=5e-9)
    np.testing.assert_allclose(found.half_life, np.log(2) * np.asarray(found.timescale), rtol=1e-15)


def test_a_constant_gate_has_the_time_scale_of_its_bias(library):
    bias = np.array([0.0, 1, 2, 3, 5])
    found = lstmx.gate_statistics(constant(library, bias, 10))
    for scale in (found.timescale, found.timescale_arithmetic):
        np.testing.assert_allclose(scale, 1 / np.log1p(np.exp(-bias)), rtol=1e-14)
        np.testing.assert_allclose(scale, [1.442695, 3.192219, 7.878482, 20.581488, 148.912599], rtol=0, atol=5e-7)
    np.testing.assert_allclose(found["forget_gate"].std, 0, atol=1e-15)


def test_a_gate_that_rounds_to_one_still_has_its_time_scale(library):
    found = lstmx.gate_statistics(constant(library, np.array([20.0, 30.0, 80.0]), 10, "float32"))
    np.testing.assert_array_equal(found["forget_gate"].mean, 1)
    for scale in (found.timescale, found.timescale_arithmetic):
        np.testing.assert_allclose(scale, 1 / np.log1p(np.exp([-20.0, -30, -80])), rtol=1e-6)


def test_a_gate_that_never_closes_has_an_infinite_time_scale(library):
    found = lstmx.gate_statistics(constant(library, np.array([1e4]), 10))
    assert (found.timescale[0], found.timescale_arithmetic[0], found.half_life[0]) == (np.inf, np.inf, np.inf)


# ------------------------------------------------------------------------------------- against the gates


def direct(history):
    """Mean, standard deviation, extremes and saturation of each gate from the materialised gates, and ⟨ln f⟩."""
    found = {}
    for name in history.cell.gate_blocks:
        gate = np.asarray(getattr(history, name), "float64").reshape(-1, history.cell.hidden_size)
        found[name] = statistics.UnitStatistics(
            gate.mean(axis=0),
            gate.std(axis=0),
            gate.min(axis=0),
            gate.max(axis=0),
            (gate < 0.1).mean(axis=0),
            (gate > 0.9).mean(axis=0),
        )
    kept = np.asarray(getattr(history, history.cell.retention_gate), "float64").reshape(
        -1, history.cell.hidden_size
    )
    return found, -1 / np.log(kept).mean(axis=0), -1 / np.log(kept.mean(axis=0))


def assert_direct(found, history, tolerance):
    gates, geometric, arithmetic = direct(history)
    assert list(found.gates) == list(gates)
    assert_close(found.gates, gates, tolerance)
    assert_close((found.timescale, found.timescale_arithmetic), (geometric, arithmetic), tolerance)
    assert found.retention_gate == history.cell.retention_gate


@pytest.mark.sample(2)
@gated
@pytest.mark.parametrize(("batch", "keep"), [((), "all"), ((2,), "states"), ((2, 3), "all")])
def test_statistics_are_those_of_the_gates(kind, library, batch, keep):
    history = random_history(kind, library, keep, length=30, batch=batch)
    found = lstmx.gate_statistics(history)
    assert {leaf.shape for leaf in jax.tree.leaves(found)} == {(4,)}
    assert is_in(library, found)
    assert_direct(found, history, 1e-12)


@pytest.mark.sample(1)
@gated
@pytest.mark.parametrize("elements", [1, 100, 333])
def test_chunks_give_what_the_whole_gives(kind, library, elements, monkeypatch):
    history = random_history(kind, library, "states", length=13, batch=(2,))
    whole = lstmx.gate_statistics(history)
    monkeypatch.setattr(statistics, "_CHUNK_ELEMENTS", elements)
    chunked = lstmx.gate_statistics(history)
    assert_close(chunked, whole, 1e-13)
    assert_direct(chunked, history, 1e-12)


@gated
def test_a_single_step_has_no_spread(kind, library):
    found = lstmx.gate_statistics(random_history(kind, library, length=1))
    for gate in found.gates.values():
        np.testing.assert_array_equal(gate.std, 0)
        np.testing.assert_array_equal(gate.min, gate.max)
        np.testing.assert_allclose(gate.mean, gate.min, rtol=1e-15)
    np.testing.assert_allclose(found.timescale, found.timescale_arithmetic, rtol=1e-12)


@gated
def test_the_arithmetic_time_scale_is_never_the_smaller(kind, library):
    found = lstmx.gate_statistics(random_history(kind, library, length=50))
    assert np.all(np.asarray(found.timescale_arithmetic) > np.asarray(found.timescale))


@pytest.mark.sample(2)
@gated
def test_float32_statistics_are_those_of_float64(kind, library):
    wide = random_history(kind, length=200, dtype="float64")
    cell, params, xs, state = draw_pass(kind, length=200, dtype="float64")
    narrow = jax.tree.map(lambda leaf: leaf.astype("float32"), (params, xs, state))
    found = lstmx.gate_statistics(lstmx.record(cell, *to(library, narrow)))
    expected = lstmx.gate_statistics(wide)
    for name in ("mean", "std", "min", "max"):
        for gate in cell.gate_blocks:
            assert_close(getattr(found[gate], name), getattr(expected[gate], name), 1e-5)
    assert_close(found.timescale, expected.timescale, 1e-5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("x64", [False, True])
def test_a_long_float32_pass_keeps_its_time_scale(x64):
    bias = np.array([0.0, 1, 3, 5])
    with jax.enable_x64(x64):
        found = lstmx.gate_statistics(constant("jax", bias, 100_000, "float32"))
        np.testing.assert_allclose(found.timescale, 1 / np.log1p(np.exp(-bias)), rtol=1e-5)
        np.testing.assert_allclose(found.timescale_arithmetic, 1 / np.log1p(np.exp(-bias)), rtol=1e-5)
        np.testing.assert_allclose(found["forget_gate"].mean, 1 / (1 + np.exp(-bias)), rtol=1e-5)
        np.testing.assert_allclose(found["forget_gate"].std, 0, atol=1e-5)


# ----------------------------------------------------------------------------------------- in use


@pytest.mark.sample(1)
@gated
def test_statistics_work_under_jit(kind):
    history = random_history(kind, "jax", "states", length=30, batch=(2,))
    found = jax.jit(lstmx.gate_statistics)(history)
    assert isinstance(found, lstmx.GateStatistics)
    assert_close(found, lstmx.gate_statistics(history), 1e-13)


@pytest.mark.sample(1)
@gated
def test_statistics_of_each_sequence_by_vmap(kind):
    cell, params, xs, state = draw_pass(kind, batch=(2,))

    def timescale(x, s):
        return lstmx.gate_statistics(lstmx.record(cell, to("jax", params), x, s)).timescale

    together = jax.vmap(timescale, (1, 0))(jnp.asarray(xs), to("jax", state))
    history = lstmx.record(cell, params, xs, state)
    expected = np.stack([lstmx.gate_statistics(history.sequence(k)).timescale for k in range(2)])
    assert_close(together, expected, 1e-12)


def test_a_gate_is_looked_up_by_its_name():
    found = lstmx.gate_statistics(random_history(lstmx.GRU))
    assert found["update_gate"] is found.gates["update_gate"]
    with pytest.raises(KeyError, match="no gate 'forget_gate'; these statistics have reset_gate, update_gate"):
        found["forget_gate"]


@gated
def test_statistics_print_as_a_table(kind, library):
    found = lstmx.gate_statistics(random_history(kind, library, length=30))
    head, *rows = str(found).splitlines()
    assert head.split("(")[0].split() == ["gate", "mean", "std", "min", "max", "<", "0.1", ">", "0.9"]
    for row, (name, gate) in zip(rows, found.gates.items(), strict=False):
        words = name.replace("_", " ")
        assert row.startswith(words)
        cells = row[len(words) :].split()
        expected = [np.mean(gate.mean), np.mean(gate.std), np.min(gate.min), np.max(gate.max)]
        assert cells[:4] == [f"{value:.3f}" for value in expected]
        assert cells[4:] == [f"{np.mean(gate.left):.1%}", f"{np.mean(gate.right):.1%}"]
    scales = {row[:33].strip(): row[33:].split() for row in rows[len(found.gates) + 1 :]}
    words = found.retention_gate.replace("_", " ")
    assert scales.pop(f"time scale of the {words}") == ["least", "median", "greatest"]
    assert list(scales) == ["geometric −1/⟨ln f⟩, steps", "arithmetic −1/ln⟨f⟩, steps", "half-life, steps"]
    for row, scale in zip(
        scales.values(), (found.timescale, found.timescale_arithmetic, found.half_life), strict=True
    ):
        assert row == [f"{f(np.asarray(scale)):.4g}" for f in (np.min, np.median, np.max)]
    assert repr(found) == f"GateStatistics({', '.join(found.gates)}: 4 units)"


# ---------------------------------------------------------------------------------------------- refused


def test_a_cell_without_gates_has_no_gate_statistics(library):
    with pytest.raises(ValueError, match="a SimpleRNN has no gates; gate statistics need a gated cell"):
        lstmx.gate_statistics(random_history(lstmx.SimpleRNN, library))


@gated
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_the_first_input_that_is_not_finite_is_named(kind, library, value, word):
    cell, params, xs, _ = draw_pass(kind, batch=(2,))
    xs[3, 1, 2] = value
    xs[4, 0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        history = lstmx.record(cell, *to(library, (params, xs)))
    with pytest.raises(
        ValueError, match=rf"inputs is {word} first at step 3, sequence \(1,\), feature 2; expected"
    ):
        lstmx.gate_statistics(history)


@gated
def test_the_first_state_that_is_not_finite_is_named(kind, library):
    cell, params, xs, state = draw_pass(kind, batch=(2,))
    state.hidden[1, 3] = np.nan
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    with pytest.raises(ValueError, match=r"hidden_state is nan first at step 0, sequence \(1,\), unit 0"):
        lstmx.gate_statistics(history)


@gated
def test_parameters_that_are_not_finite_are_named(kind, library):
    cell, params, xs, _ = draw_pass(kind)
    params.recurrent_kernel[1, 1] = np.nan
    history = lstmx.record(cell, *to(library, (params, xs)))
    with pytest.raises(ValueError, match=r"params\.recurrent_kernel holds NaN or infinity"):
        lstmx.gate_statistics(history)


@pytest.mark.sample(1)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gate_that_is_almost_closed_has_the_time_scale_of_its_logarithm(library, dtype):
    """1 − f rounds to 1 from a bias of −17 in float32, and f itself to 0 from −104."""
    bias = np.array([-8.0, -16, -20, -90, -120, -700])
    history = constant(library, bias, 40, dtype)
    expected = 1 / np.logaddexp(0, -bias)
    for found in (
        lstmx.gate_statistics(history),
        lstmx.summarise(history.cell, history.params, history.inputs),
        lstmx.gate_statistics(history[:3]),
    ):
        for scale in (found.timescale, found.timescale_arithmetic):
            np.testing.assert_allclose(scale, expected, rtol=4e-6 if dtype == "float32" else 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("elements", [1, 10**7])
def test_the_arithmetic_time_scale_of_gates_from_closed_to_open(library, elements, monkeypatch):
    """Gates whose pre-activations are inputs, against sums in logarithms in float64; it is the greater."""
    monkeypatch.setattr(statistics, "_CHUNK_ELEMENTS", elements)
    offsets = np.array([-110.0, -30, -16, -1, 0, 3, 12])
    cell = lstmx.LSTM(1, len(offsets))
    kernel = np.zeros((1, 4 * len(offsets)), "float32")
    kernel[:, 7:14] = 1
    bias = np.concatenate([np.zeros(7), offsets, np.zeros(14)]).astype("float32")
    params = lstmx.LSTMParams(kernel, np.zeros((7, 28), "float32"), bias)
    xs = np.random.default_rng(3).normal(0, 4, (50, 1)).astype("float32")
    logs = -np.logaddexp(0, -(xs.astype("float64") + offsets))
    geometric = -1 / logs.mean(axis=0)
    # ln⟨f⟩ from ln f where f is small, and from 1 − f where it is near 1
    small, near_one = np.logaddexp.reduce(logs, axis=0) - np.log(50), np.expm1(logs).mean(axis=0)
    arithmetic = -1 / np.where(near_one < -0.5, small, np.log1p(np.maximum(near_one, -0.5)))
    history = lstmx.record(cell, *to(library, (params, xs)))
    for found in (lstmx.gate_statistics(history), lstmx.summarise(cell, *to(library, (params, xs)))):
        np.testing.assert_allclose(found.timescale, geometric, rtol=1e-5)
        np.testing.assert_allclose(found.timescale_arithmetic, arithmetic, rtol=1e-5)
        assert (np.asarray(found.timescale_arithmetic) >= np.asarray(found.timescale)).all()
