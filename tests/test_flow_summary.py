"""The decay of a gradient, told from where its loss enters: rate, rates, half-life, horizon, verdict and text."""

import itertools

import numpy as np
import pytest
from reference import draw_pass, random_history, to

import lstmx
from lstmx.gradients.summary import FlowSummary

LENGTHS = np.array([1, 40, 25, 2])


class Readings(FlowSummary):
    """The readings of log norms [T, *batch] whose loss enters at one step, by default the last."""

    log_highway = None
    gates = None

    def __init__(self, log_norm, step=-1):
        self.log_norm = np.asarray(log_norm, float)
        self.log_direct = np.full(self.log_norm.shape, -np.inf)
        self.log_direct[step] = 0


def of_lags(values):
    """The readings of log norms at lag 0, 1, …"""
    return Readings(np.asarray(values)[::-1])


def summed(flow):
    return np.array([*flow.decay_rate, flow.half_life, flow.horizon(), flow.horizon(0.3), *flow.rates])


def at_step(history, step):
    """A loss, the sum of the output at one step."""
    loss = np.zeros((len(history), *history.batch, history.cell.output_size))
    loss[step] = 1
    return loss


def padded(library="numpy", kind=lstmx.LSTM):
    cell, params, xs, _ = draw_pass(kind, length=40, batch=(4,))
    return lstmx.record(cell, *to(library, (params, xs)), lengths=LENGTHS)


# ------------------------------------------------------------------------------------------ where losses enter


@pytest.mark.slow
def test_the_direct_part_of_the_last_output_is_a_vector_of_ones(kind, library):
    flow = lstmx.gradient_flow(random_history(kind, library, batch=(2,)))
    np.testing.assert_allclose(flow.log_direct[-1], 0.5 * np.log(4), rtol=1e-15)
    assert np.isneginf(np.asarray(flow.log_direct[:-1])).all()


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["all", "norms"])
def test_the_direct_part_has_the_norm_of_what_the_loss_hands_to_each_output(library, outputs):
    history = random_history(lstmx.GRU, library, batch=(3,))
    loss = np.random.default_rng(0).normal(size=history.hidden_state.shape)
    loss[2] = loss[4, 1] = 0
    flow = lstmx.gradient_flow(history, to(library, loss), outputs=outputs)
    with np.errstate(divide="ignore"):
        expected = np.log(np.linalg.norm(loss, axis=-1))
    np.testing.assert_allclose(flow.log_direct, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.slow
def test_the_direct_part_ends_with_each_sequence(library):
    history = padded(library)
    within = np.arange(40)[:, None] < LENGTHS
    expected = np.where(within, np.where(np.arange(40)[:, None] == LENGTHS - 1, 0.5 * np.log(4), -np.inf), np.nan)
    np.testing.assert_allclose(lstmx.gradient_flow(history).log_direct, expected, rtol=1e-15)
    ones = lstmx.gradient_flow(history, history.hidden_state * 0 + 1).log_direct
    np.testing.assert_allclose(ones, np.where(within, 0.5 * np.log(4), np.nan), rtol=1e-15)


def test_a_layer_below_receives_at_every_step_what_the_layer_above_hands_down():
    stack = lstmx.Stack([lstmx.GRU(3, 5), lstmx.LSTM(5, 4)])
    params = stack.init(np.random.default_rng(0), dtype="float64")
    history = lstmx.record(stack, params, np.random.default_rng(1).normal(size=(30, 3)))
    flow = lstmx.gradient_flow(history)
    handed = lstmx.gradient_flow(history.layers[1]).inputs
    np.testing.assert_allclose(flow["layer 0"].log_direct, np.log(np.linalg.norm(handed, axis=-1)), rtol=1e-10)
    np.testing.assert_array_equal(flow.log_direct, flow["layer 1"].log_direct)


# ------------------------------------------------------------------------------- the gradient, not its position


@pytest.mark.sample(3)
@pytest.mark.parametrize("step", [298, 150, 12])
def test_where_the_loss_sits_does_not_matter(kind, step):
    """A loss on an earlier output has the readings of a pass that ends there."""
    history = random_history(kind, length=300)
    flow = lstmx.gradient_flow(history, at_step(history, step))
    expected = lstmx.gradient_flow(history[: step + 1])
    np.testing.assert_allclose(summed(flow), summed(expected), rtol=1e-10)
    assert flow.verdict == expected.verdict
    assert "nan" not in str(flow)


def test_the_last_output_but_one_is_no_steadier_than_the_last():
    history = random_history(lstmx.SimpleRNN, length=300)
    flows = [lstmx.gradient_flow(history, at_step(history, step)) for step in (299, 298)]
    assert [str(flow.verdict) for flow in flows] == ["vanishing", "vanishing"]
    assert flows[1].horizon() > 0
    np.testing.assert_allclose(flows[1].half_life, flows[0].half_life, rtol=0.05)


@pytest.mark.sample(1)
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_each_sequence_is_measured_from_its_own_loss(library):
    history = padded(library)
    loss = np.zeros(history.hidden_state.shape)
    entries = [0, 33, 10, 1]
    loss[entries, np.arange(4)] = np.random.default_rng(0).normal(size=(4, 4))
    flow = lstmx.gradient_flow(history, to(library, loss))
    for k, step in enumerate(entries):
        expected = lstmx.gradient_flow(history.sequence(k)[: step + 1], to(library, loss[: step + 1, k]))
        np.testing.assert_allclose(summed(flow)[:, k], summed(expected), rtol=1e-9)
        assert flow.verdict[k] == expected.verdict


@pytest.mark.sample(1)
def test_steps_that_do_not_count_are_left_out_of_every_reading(library):
    cell, params, xs, _ = draw_pass(lstmx.LSTM, length=40, batch=(3,))
    counts = np.random.default_rng(5).random((40, 3)) < 0.7
    counts[:4, 0] = counts[-4:, 1] = False
    counts[-4:, 0] = True
    history = lstmx.record(cell, *to(library, (params, xs)), mask=to(library, counts))
    flow = lstmx.gradient_flow(history)
    alone = [lstmx.gradient_flow(piece) for piece in history.pieces()]
    np.testing.assert_allclose(summed(flow), np.stack([summed(one) for one in alone], axis=-1), rtol=1e-9)
    assert flow.verdict.tolist() == [str(one.verdict) for one in alone]
    assert "nan" not in str(flow)
    last = [int(np.flatnonzero(column)[-1]) for column in counts.T]
    assert last[0] == 39
    assert f"(step {last[0]})" in str(lstmx.gradient_flow(history.sequence(0)))


def test_the_horizon_counts_from_the_loss():
    values = np.log([[0.001, 0.02, 0.009, 0.5, 1.0], [1e-9, 1e-9, 1e-3, 1.0, 1.0]]).T
    readings = Readings(np.concatenate([values, np.full((6, 2), -np.inf)]), step=4)
    np.testing.assert_array_equal(readings.horizon(), [2, 2])
    np.testing.assert_array_equal(readings.horizon(0.6), [1, 2])


@pytest.mark.parametrize("length", [2, 5, 7])
def test_the_norms_alone_decide_where_there_is_no_standard_error(length):
    lags = np.arange(length)
    assert of_lags(-6.0 * lags).verdict == "vanishing"
    assert of_lags(6.0 * lags).verdict == "exploding"
    assert of_lags(0.1 * lags).verdict == "steady"


# --------------------------------------------------------------------------------------------- losses of many ages


@pytest.mark.slow
@pytest.mark.parametrize("steps", [[298, 299], [0, 299], range(300)])
def test_losses_at_many_steps_have_no_decay_and_say_so(steps):
    history = random_history(lstmx.LSTM, length=300)
    flow = lstmx.gradient_flow(history, at_step(history, list(steps)))
    assert flow.verdict == "undefined"
    assert np.isnan(summed(flow)).all()
    text = str(flow)
    assert f"losses enter at {len(steps)} steps, so that the norms mix gradients of different ages" in text
    assert "lstmx.influence(history).lag_profile" in text
    assert "nan" not in text
    title = lstmx.plot.gradient_flow(flow).get_suptitle()
    assert f"losses enter at {len(steps)} steps" in title


def test_the_sequences_of_a_batch_are_judged_each_for_itself():
    history = random_history(lstmx.LSTM, length=60, batch=(5,))
    loss = np.zeros((60, 5, 4))
    loss[-1, 0] = loss[0, 1] = loss[3:5, 2] = loss[:, 3] = 1
    flow = lstmx.gradient_flow(history, loss)
    assert flow.verdict.tolist() == ["vanishing", *["undefined"] * 4]
    np.testing.assert_array_equal(np.isnan(flow.horizon()), [False, False, True, True, True])
    text = str(flow)
    assert "1 vanishing" in text
    assert "4 undefined" in text
    assert "in 2 of 5 sequences losses enter at up to 60 steps" in text
    assert "in 1 of 5 sequences the loss enters at the first step: one step, no decay to speak of" in text
    assert "in 1 of 5 sequences no loss enters" in text
    assert "nan" not in text


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_a_padded_pass_with_a_single_step_is_told_in_words(kind, library):
    flow = lstmx.gradient_flow(padded(library, kind))
    assert flow.verdict[0] == "undefined"
    assert np.isnan(flow.half_life[0])
    text = str(flow)
    assert "in 1 of 4 sequences the loss enters at the first step: one step, no decay to speak of" in text
    assert "nan" not in text
    assert "nan" not in lstmx.plot.gradient_flow(flow, 0).get_suptitle()


@pytest.mark.parametrize("length", [1, 30])
def test_a_loss_on_the_first_output_has_nothing_before_it(kind, length):
    history = random_history(kind, length=length)
    flow = lstmx.gradient_flow(history, at_step(history, 0))
    assert flow.verdict == "undefined"
    assert flow.horizon() == np.inf
    assert "one step, no decay to speak of" in str(flow)
    assert "nan" not in str(flow)


def test_a_gradient_that_is_gone_after_one_step_is_told_in_words():
    cell = lstmx.SimpleRNN(1, 2)
    params = lstmx.SimpleRNNParams(np.ones((1, 2)), np.zeros((2, 2)), np.zeros(2))
    flow = lstmx.gradient_flow(lstmx.record(cell, params, np.ones((20, 1))))
    assert flow.verdict == "vanishing"
    assert flow.horizon() == 1
    assert "exactly zero at every step before the loss" in str(flow)
    assert "nan" not in str(flow)


# ------------------------------------------------------------------------------------------------------ two rates


def walks(mean, correlation, draws, walks):
    """Log norms [T, walks] at lag 0, 1, … whose increments are an AR(1) process of deviation 1 about a mean."""
    noise = draws.normal(size=(len(mean), walks)) * np.sqrt(1 - correlation**2)
    steps = np.zeros_like(noise)
    steps[0] = draws.normal(size=walks)
    for t in range(1, len(mean)):
        steps[t] = correlation * steps[t - 1] + noise[t]
    return np.cumsum(np.asarray(mean)[:, None] + steps, axis=0)


@pytest.mark.sample(2)
@pytest.mark.parametrize("length", [16, 50, 400])
def test_one_exponential_with_noise_is_rarely_split(length):
    """Of random walks with increments correlated over up to ten steps, fewer than 5 % are called two rates."""
    draws = np.random.default_rng(0)
    for correlation in (-0.4, 0.0, 0.6, 0.9):
        lags = of_lags(walks(np.full(length, -0.1), correlation, draws, 400)).rates.lag
        assert np.mean(~np.isnan(lags)) < 0.05


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("slope", [-0.3, 0.0, 0.07])
def test_rounding_is_no_second_rate(dtype, slope):
    readings = of_lags((0.3 + slope * np.arange(1000)).astype(dtype))
    assert np.isnan(readings.rates).all()
    assert "not one exponential" not in str(readings)


def test_a_fast_start_and_a_slow_tail_are_both_named():
    """The two exponentials are equal at lag ln 1000 / 0.49."""
    lags = np.arange(400)
    readings = of_lags(np.log(np.exp(-0.5 * lags) + 1e-3 * np.exp(-0.01 * lags)))
    near, far, lag = readings.rates
    np.testing.assert_allclose(near, 0.5, rtol=0.1)
    np.testing.assert_allclose(far, 0.01, rtol=0.1)
    np.testing.assert_allclose(lag, np.log(1000) / 0.49, atol=1)
    assert readings.verdict == "vanishing"
    assert f"not one exponential: {near:.4g} nats per step up to {lag:.4g} steps back, {far:.4g} beyond" in str(
        readings
    )


@pytest.mark.parametrize(
    ("near", "far", "lag"), [(0.5, 0.0625, 60), (0.0, 1.0, 300), (0.25, -0.5, 200), (2, 0, 5)]
)
def test_two_straight_pieces_are_found_to_the_step(near, far, lag):
    lags = np.arange(400.0)
    values = -near * np.minimum(lags, lag) - far * np.maximum(lags - lag, 0)
    np.testing.assert_allclose(np.ravel(of_lags(values).rates), [near, far, lag], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_two_rates_are_found_in_noise(correlation):
    """200 walks with increments of deviation 1, which fall by 4 nats per step and from lag 40 by 0.5."""
    mean = np.where(np.arange(400) < 40, -4.0, -0.5)
    near, far, lag = of_lags(walks(mean, correlation, np.random.default_rng(1), 200)).rates
    found = ~np.isnan(lag)
    assert found.mean() > 0.95
    np.testing.assert_allclose(near[found].mean(), 4, atol=0.1)
    np.testing.assert_allclose(far[found].mean(), 0.5, atol=0.05)
    np.testing.assert_allclose(lag[found].mean(), 40, atol=1)


def test_each_sequence_has_rates_of_its_own():
    lags = np.arange(100.0)
    straight, bent = -0.5 * lags, -0.5 * np.minimum(lags, 30)
    values = np.stack([[straight, bent, straight], [bent, bent, straight]]).transpose(2, 0, 1)
    readings = of_lags(values)
    expected = [[np.nan, 30, np.nan], [30, 30, np.nan]]
    for found in readings.rates:
        assert found.dtype == np.float64
    np.testing.assert_array_equal(readings.rates.lag, expected)
    np.testing.assert_array_equal(readings.decay_rate.rate[~np.isnan(expected)] < 0.5, True)
    assert "not one exponential: in 3 of 6 sequences 0.5 nats per step up to 30 steps back, 0 beyond" in str(
        readings
    )


def test_two_rates_are_counted_from_the_loss_and_leave_out_exact_zeros():
    lags = np.arange(100.0)
    values = np.where(lags < 90, -0.5 * np.minimum(lags, 30), -np.inf)[::-1]
    readings = Readings(np.concatenate([values, np.full(50, -np.inf)]), step=99)
    np.testing.assert_allclose(np.ravel(readings.rates), [0.5, 0, 30], atol=1e-12)


def test_fewer_than_sixteen_steps_are_never_split():
    assert np.isnan(of_lags(-10.0 * np.minimum(np.arange(15), 5)).rates).all()
    assert not np.isnan(of_lags(-10.0 * np.minimum(np.arange(40), 20)).rates).any()


def test_an_exact_fit_of_two_rates_has_no_standard_error_to_speak_of():
    """Blocks deviate from the mean of their own part, not from that of the whole."""
    lags = np.arange(401.0)
    straight = of_lags(-0.5 * np.minimum(lags, 200)).decay_rate.standard_error
    np.testing.assert_allclose(straight, 0, atol=1e-12)


# ------------------------------------------------------------------------------------------------ through layers


def drawn_stack(layers, length=300, batch=()):
    stack = lstmx.Stack(layers)
    params = stack.init(np.random.default_rng(0), dtype="float64")
    return lstmx.record(stack, params, np.random.default_rng(1).normal(size=(length, *batch, 3)))


@pytest.mark.parametrize("step", [299, 200])
def test_layers_decay_together_from_the_users_loss(step):
    history = drawn_stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 5)])
    flow = lstmx.gradient_flow(history, at_step(history, step))
    joint = 0.5 * np.log(np.exp(2 * flow.log_norm[:, : step + 1]).sum(axis=0))
    np.testing.assert_allclose(summed(flow), summed(Readings(joint)), rtol=1e-10)
    assert flow.verdict == "vanishing"
    assert flow["layer 1"].verdict == "vanishing"
    assert flow["layer 0"].verdict == "undefined"
    text = str(flow)
    assert "nan" not in text
    assert "all layers together:\ngradient over 300 steps: vanishing" in text
    assert "mixes gradients of different ages" in text


def test_a_padded_batch_through_layers_is_judged_like_each_sequence_alone():
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 5)])
    params = stack.init(np.random.default_rng(0), dtype="float64")
    xs = np.random.default_rng(1).normal(size=(40, 4, 3))
    flow = lstmx.gradient_flow(lstmx.record(stack, params, xs, lengths=LENGTHS))
    for k, length in enumerate(LENGTHS):
        expected = lstmx.gradient_flow(lstmx.record(stack, params, xs[:length, k]))
        np.testing.assert_allclose(summed(flow)[:, k], summed(expected), rtol=1e-9)
        assert flow.verdict[k] == expected.verdict
        assert np.isnan(flow.log_direct[length:, k]).all()
    assert "nan" not in str(flow)


def test_losses_on_many_outputs_of_a_stack_have_no_decay():
    history = drawn_stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 5)])
    flow = lstmx.gradient_flow(history, history.outputs * 0 + 1)
    assert flow.verdict == "undefined"
    assert "losses enter at 300 steps" in str(flow)
    assert "nan" not in str(flow)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_two_directions_of_time_have_no_verdict(batch):
    both = lstmx.Bidirectional(lstmx.LSTM(3, 4))
    for layers in ([both], [both, lstmx.GRU(8, 5)], [lstmx.GRU(3, 3), both]):
        flow = lstmx.gradient_flow(drawn_stack(layers, 60, batch))
        assert (flow.verdict == "undefined").all()
        assert flow.verdict.shape == batch
        assert np.isnan(summed(flow)).all()
        assert not flow.forward
        assert "time has no single direction" in str(flow)
        assert "nan" not in str(flow)


def test_every_kind_of_end_can_be_printed_at_any_length():
    """Warnings are errors here."""
    for kind, length in itertools.product((lstmx.LSTM, lstmx.SimpleRNN), (1, 2, 3, 8, 17)):
        history = random_history(kind, length=length, batch=(2,))
        for steps in ([], [0], [length - 1], [0, length - 1]):
            assert "nan" not in str(lstmx.gradient_flow(history, at_step(history, steps)))
