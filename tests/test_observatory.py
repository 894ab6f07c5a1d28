"""An observatory gives what the analyses give one by one, changes nothing of a training, and alarms in time."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from family import FORMS, draw, of_size
from reference import to

import lstmx
from lstmx.observatory.looking import READINGS

os.environ.setdefault("KERAS_BACKEND", "jax")
TASK = lstmx.tasks.adding_problem(length=12, batch=8)
MODEL = lstmx.Model(lstmx.LSTM(2, 5), 1, "mean_squared_error")
PROBE = TASK.validation.inputs[:, :3]


def drawn(cell, length=20, batch=(2,), seed=0):
    """An observatory, parameters in NumPy float64."""
    params = cell.init(np.random.default_rng(seed), "float64")
    probe = np.random.default_rng(seed + 1).normal(size=(length, *batch, cell.input_size))
    return lstmx.Observatory(cell, probe, 1), params, probe


def close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------------- the readings


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(), (2, 2)], ids=str)
def test_readings_are_those_of_the_analyses(library, batch):
    cell = lstmx.LSTM(3, 4)
    _, params, probe = drawn(cell, batch=batch)
    params, probe = to(library, (params, probe))
    observatory = lstmx.Observatory(cell, probe, 10)
    observatory(0, params)
    history = lstmx.record(cell, params, probe)
    flow, statistics = lstmx.gradient_flow(history), lstmx.gate_statistics(history)
    close(observatory["decay_rate"][0], flow.decay_rate.rate.ravel())
    close(observatory["horizon"][0], flow.horizon().ravel())
    norms = np.asarray(flow.log_norm).reshape(20, -1)
    close(observatory["log_norm"][0], np.median(norms[::-1] - norms[-1], axis=1))
    close(observatory["mean_order"][0], np.ravel(lstmx.path_spectrum(history).mean_order[0]))
    spectrum = lstmx.lyapunov_spectrum(history, 4, transient=2, reorthonormalise=1, check=False)
    close(observatory["exponents"][0], spectrum.exponents)
    axes = observatory.axes
    assert axes["layer"] == ["LSTM"]
    assert axes["way"] == list(flow.gates)
    assert axes["gate"] == list(statistics.gates)
    for k, share in enumerate(flow.gates.values()):
        close(observatory["share"][0, 0, k], np.mean(share.share))
    for k, (name, gate) in enumerate(statistics.gates.items()):
        close(observatory["gate_mean"][0, 0, k], np.mean(gate.mean))
        close(observatory["left"][0, 0, k], np.mean(gate.left))
        close(observatory["right"][0, 0, k], np.mean(gate.right))
        counts = np.histogram(getattr(history, name), 20, (0, 1))[0]
        close(observatory["distribution"][0, 0, k], counts / counts.sum())
    close(observatory["timescale"][0, 0, 1], np.sort(statistics.timescale)[2])
    close(observatory["weight_norm"][0, 0], np.sqrt(sum(np.sum(np.square(x)) for x in params)))
    assert observatory["finite"] == 1
    assert np.isnan(observatory["gradient_norm"]).all()


@pytest.mark.sample(1)
def test_of_a_stack_there_are_readings_of_each_layer(library):
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 5)])
    _, params, probe = drawn(stack)
    params, probe = to(library, (params, probe))
    observatory = lstmx.Observatory(stack, probe, 10)
    observatory(0, params)
    history = lstmx.record(stack, params, probe)
    flow, statistics = lstmx.gradient_flow(history), lstmx.gate_statistics(history)
    axes = observatory.axes
    assert axes["layer"] == ["layer 0", "layer 1"]
    assert axes["gate"] == ["input_gate", "forget_gate", "output_gate", "reset_gate", "update_gate"]
    close(observatory["decay_rate"][0], flow.decay_rate.rate)
    close(observatory["horizon"][0], flow.horizon())
    assert np.isnan(observatory["mean_order"]).all()  # a GRU has no cell state
    for k, name in enumerate(axes["layer"]):
        for j, way in enumerate(axes["way"]):
            found = observatory["share"][0, k, j]
            if way in flow[name].gates:
                close(found, np.mean(flow[name].gates[way].share))
            else:
                assert np.isnan(found)
        for j, gate in enumerate(axes["gate"]):
            found = observatory["gate_mean"][0, k, j]
            if gate in statistics[name].gates:
                close(found, np.mean(statistics[name][gate].mean))
            else:
                assert np.isnan(found)
        close(observatory["weight_norm"][0, k], np.sqrt(sum(np.sum(np.square(x)) for x in params[k])))
    spectrum = lstmx.lyapunov_spectrum(history, 4, transient=2, reorthonormalise=1)
    close(observatory["exponents"][0], spectrum.exponents)


@pytest.mark.parametrize("name", [*FORMS, "GRU", "ReLU", "SLSTM", "no gates", "MinGRU"])
def test_every_cell_has_its_readings(name):
    cell = of_size(3, 4)[name]
    params, _, probe, _ = draw(cell, (2,), length=10)
    observatory = lstmx.Observatory(cell, probe, 1)
    observatory(1, params)
    for reading in ("decay_rate", "exponents", "weight_norm", "log_norm", "share"):
        assert not np.isnan(observatory[reading]).any(), reading
    assert np.isnan(observatory["mean_order"]).all() == ("cell" not in cell.state_type._fields)
    assert len(observatory.axes["gate"]) == len(cell.gate_names)
    assert not np.isnan(observatory["gate_mean"]).any()


def test_a_step_function_has_no_ways_back():
    cell = lstmx.from_step(lambda params, h, x: params["decay"] * h + x.sum(), jnp.zeros(2), 3)
    observatory = lstmx.Observatory(cell, jnp.ones((9, 3)), 1)
    observatory(0, {"decay": jnp.array(0.5)})
    close(observatory["decay_rate"], [[np.log(2)]])
    close(observatory["exponents"][0], [-np.log(2), -np.log(2), np.nan, np.nan])
    assert observatory["share"].shape == (1, 1, 0)


def test_a_loss_is_that_of_gradient_flow():
    cell = lstmx.GRU(3, 4)
    _, params, probe = drawn(cell)
    loss = np.zeros((20, 2, 4))
    loss[11] = 1
    observatory = lstmx.Observatory(cell, probe, 1, loss=loss)
    observatory(0, params)
    flow = lstmx.gradient_flow(lstmx.record(cell, params, probe), loss)
    close(observatory["decay_rate"][0], flow.decay_rate.rate)
    norms = flow.log_norm
    close(observatory["log_norm"][0, :12], np.median(norms[11::-1] - norms[11], axis=1))
    assert np.isnan(observatory["log_norm"][0, 12:]).all()


@pytest.mark.slow
def test_what_a_function_weighs_is_the_loss():
    cell = lstmx.GRU(3, 4)
    params, probe = to("jax", drawn(cell)[1:])
    observatory = lstmx.Observatory(cell, probe, 1, loss=lambda outputs: (outputs[-1] ** 2).sum())
    observatory(0, params)
    flow = lstmx.gradient_flow(lstmx.record(cell, params, probe), lambda outputs: (outputs[-1] ** 2).sum())
    close(observatory["decay_rate"][0], flow.decay_rate.rate)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("loss", "error", "match"),
    [
        (np.ones(2), ValueError, r"training_loss has shape \(2,\); expected a real number"),
        ([0.5], ValueError, r"training_loss has shape \(1,\)"),
        ("0.5", TypeError, "training_loss is '0.5'; expected a real number"),
        (True, TypeError, "training_loss is True"),
        (1j, TypeError, "training_loss is 1j"),
    ],
)
def test_a_training_loss_that_is_no_number_is_refused_and_leaves_nothing(loss, error, match):
    observatory = lstmx.Observatory(MODEL.cell, PROBE, 1)
    params = MODEL.cell.init(np.random.default_rng(0))
    for step, number in enumerate((0.5, np.float32(0.5), jnp.array(0.5, "bfloat16"))):
        observatory(step, params, training_loss=number)
    with pytest.raises(error, match=match):
        observatory(3, params, training_loss=loss)
    np.testing.assert_array_equal(observatory["training_loss"], [0.5, 0.5, 0.5])


# ------------------------------------------------------------------------------------------------- in a training


@pytest.mark.slow
def test_training_is_the_same_to_the_bit_with_and_without():
    observatory = lstmx.Observatory(MODEL.cell, PROBE, 5)
    plain = lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=12, progress=False)
    seen = lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=12, progress=False, observe=observatory)
    for left, right in zip(jax.tree.leaves(plain), jax.tree.leaves(seen), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(observatory.steps, [0, 5, 10])
    close(observatory["training_loss"][1:], plain.losses[[4, 9]])
    assert np.isnan(observatory["training_loss"][0])


@pytest.mark.slow
def test_gradient_and_update_of_a_training_are_those_of_its_step():
    observatory = lstmx.Observatory(MODEL.cell, PROBE, 3)
    optimizer = optax.sgd(0.1)
    training = lstmx.train(MODEL, MODEL.init(0), TASK.batch, optimizer, 3, progress=False, observe=observatory)
    before = lstmx.train(MODEL, MODEL.init(0), TASK.batch, optimizer, 2, progress=False).params
    inputs, targets, _ = TASK.batch(2)

    def loss(params):
        return jnp.mean((MODEL.predict(params, jnp.asarray(inputs))[0][-1] - targets[-1]) ** 2)

    gradient = jax.grad(loss)(before).cell
    close(observatory["gradient_norm"][1, 0], np.sqrt(sum(float(jnp.vdot(g, g)) for g in gradient)), 1e-5)
    moved = jax.tree.map(lambda a, b: a - b, training.params.cell, before.cell)
    close(observatory["update_norm"][1, 0], np.sqrt(sum(float(jnp.vdot(g, g)) for g in moved)), 1e-5)


@pytest.mark.slow
def test_a_training_that_goes_back_is_looked_at_again():
    observatory = lstmx.Observatory(MODEL.cell, PROBE, 2)
    half = lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=3, progress=False, observe=observatory)
    lstmx.train(MODEL, None, TASK.batch, steps=5, progress=False, resume=half, observe=observatory)
    ahead = {name: observatory[name] for name in READINGS}
    lstmx.train(MODEL, None, TASK.batch, steps=5, progress=False, resume=half, observe=observatory)
    np.testing.assert_array_equal(observatory.steps, [0, 2, 4, 6, 8])
    for name, values in ahead.items():
        np.testing.assert_array_equal(observatory[name], values)


def test_a_step_that_is_not_due_is_not_looked_at():
    observatory = lstmx.Observatory(MODEL.cell, PROBE, 50)
    assert observatory(49, None) == ()
    assert len(observatory) == 0
    assert observatory.alarms == ()
    assert str(observatory) == repr(observatory)


def test_one_look_and_a_horizon_beyond_the_probe_are_said_in_words():
    observatory = lstmx.Observatory(lstmx.SimpleRNN(1, 3, activation="relu"), np.ones((40, 2, 1)), 1)
    observatory(0, scaled(1.0), training_loss=np.inf)
    assert repr(observatory).endswith("1 look, 1 alarm)")
    first, horizon, *_, loss, _, _ = str(observatory).splitlines()
    assert first.startswith("1 look at SimpleRNN")
    assert first.endswith(", every step, up to step 0")
    beyond = "beyond the probe"
    assert horizon == f"  below 1 % of the gradient, steps back: {beyond} at first, {beyond} at last"
    assert loss == "  training loss: inf at first, inf at last"


@pytest.mark.slow  # runs where .ci/run installs the frameworks
def test_a_model_of_pytorch_is_looked_at_by_a_converter():
    torch = pytest.importorskip("torch", reason="a module of PyTorch is looked at")
    module = torch.nn.LSTM(2, 5)
    cell, params = lstmx.convert.from_torch(module)
    theirs = lstmx.Observatory(cell, PROBE, 1, convert=lstmx.convert.from_torch)
    ours = lstmx.Observatory(cell, PROBE, 1)
    theirs(1, module)
    ours(1, params)
    for name in READINGS:
        np.testing.assert_array_equal(theirs[name], ours[name])
    with pytest.raises(ValueError, match="gradient or update is given beside convert="):
        theirs(2, module, gradient=params)
    with pytest.raises(ValueError, match=r"convert gives LSTM\(.*hidden_size=7\); this observatory is of"):
        theirs(2, torch.nn.LSTM(2, 7))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # Keras's own
@pytest.mark.parametrize("framework", ["flax", "equinox", "haiku", "keras"])
def test_parameters_of_other_frameworks_are_looked_at_by_their_converters(framework):
    pytest.importorskip(framework, reason="its parameters are looked at")
    made = lstmx.GRU(2, 5, "before") if framework == "haiku" else lstmx.LSTM(2, 5)
    params = to("jax", made.init(np.random.default_rng(0)))
    read = getattr(lstmx.convert, f"from_{framework}")
    theirs = getattr(lstmx.convert, f"to_{framework}")(made, params)
    cell, ours = read(theirs)
    direct, converted = lstmx.Observatory(cell, PROBE, 1), lstmx.Observatory(cell, PROBE, 1, convert=read)
    direct(1, to("numpy", ours))
    converted(1, theirs)
    for name in READINGS:
        np.testing.assert_array_equal(direct[name], converted[name])


def test_a_zoneout_is_looked_at_as_it_runs_without_chance():
    cell = lstmx.Zoneout(lstmx.LSTM(3, 4), hidden=0.25)
    observatory, params, probe = drawn(cell)
    observatory(0, params)
    history = lstmx.record(cell, params, probe)
    flow = lstmx.gradient_flow(history)
    close(observatory["horizon"][0], flow.horizon())
    assert observatory.axes["way"] == list(flow.gates)
    close(observatory["mean_order"][0], lstmx.path_spectrum(history).mean_order[0])
    close(observatory["timescale"][0, 0, 1], np.sort(lstmx.gate_statistics(history).timescale)[2])


# ----------------------------------------------------------------------------------------------------- the alarms


def scaled(gain, units=3):
    """A ReLU network that multiplies its state by `gain` at each step, in closed form."""
    return lstmx.SimpleRNNParams(np.ones((1, units)), gain * np.eye(units), np.zeros(units))


def looked_at(gains, length=40, lag=None):
    observatory = lstmx.Observatory(lstmx.SimpleRNN(1, 3, activation="relu"), np.ones((length, 2, 1)), 10, lag=lag)
    made = [observatory(10 * k, scaled(gain)) for k, gain in enumerate(gains)]
    assert [alarm for alarms in made for alarm in alarms] == list(observatory.alarms)
    return observatory


def test_a_linear_network_has_its_readings_in_closed_form():
    observatory = looked_at([0.9, 1.1])
    close(observatory["decay_rate"], -np.log([[0.9] * 2, [1.1] * 2]))
    close(observatory["exponents"][:, :3], np.log([[0.9] * 3, [1.1] * 3]))
    close(observatory["log_norm"], np.log([[0.9], [1.1]]) * np.arange(40))
    assert observatory.alarms == ()


def test_each_alarm_has_the_step_at_which_it_was_first_true():
    observatory = looked_at([1.0, 0.95, 0.85, 0.78, 0.1, 1.18, 1.25, np.nan], lag=30)
    found = {alarm.kind: alarm.step for alarm in observatory.alarms}
    assert found == {"lag": 30, "vanishing": 40, "crossing": 50, "exploding": 60, "not finite": 70}
    assert str(observatory.alarms[0]) == (
        "step 30: the gradient no longer reaches 30 steps back: 0.000579 of it is left there, where at an earlier "
        "look it was over 1 %"
    )
    assert observatory.alarms[1].words == "the gradient vanishes: 10 steps back 1e-10 of it is left"
    assert observatory.alarms[2].words.startswith(
        "the leading Lyapunov exponent is +0.166 nats per step and has crossed +0.115, ln 100 / 40, so that"
    )
    assert "39 steps back it is 6.02e+03 times" in observatory.alarms[3].words
    assert "step 70: the parameters or the states are not finite" in str(observatory)
    assert repr(observatory).endswith("8 looks, 5 alarms)")


def test_an_update_that_makes_the_outputs_jump_is_told():
    """Of a linear network with U = g I and a first input alone, h_t = g^t."""
    cell = lstmx.SimpleRNN(1, 3, activation="relu")
    probe = np.zeros((40, 2, 1))
    probe[0] = 1
    observatory = lstmx.Observatory(cell, probe, 1)
    update = lstmx.SimpleRNNParams(np.zeros((1, 3)), 0.01 * np.eye(3), np.zeros(3))
    assert observatory(0, scaled(1.0), update=update) == ()

    def size(gain):
        return 0.5 * np.log(np.sum(gain ** (2 * np.arange(40))))

    close(observatory["jump"], size(1.01) - size(1.0))
    (alarm,) = observatory(1, scaled(1.0), update=update._replace(recurrent_kernel=-0.1 * np.eye(3)))
    close(observatory["jump"][1], size(1.1) - size(1.0))
    assert alarm.kind == "unstable"
    assert f"makes the outputs on the probe {np.exp(size(1.1) - size(1.0)):.3g} times as large" in alarm.words
    assert np.isnan(lstmx.Observatory(cell, probe, 1)["jump"]).all()


def test_a_network_that_never_reached_the_lag_has_not_lost_it():
    assert looked_at([0.8, 0.8], lag=30).alarms == ()
    assert looked_at([0.8, 1.0], lag=30).reached(30) == 10
    assert looked_at([0.8]).reached(30) == np.inf


def test_a_gate_that_is_dead_or_stuck_is_told():
    cell = lstmx.LSTM(2, 4)
    params = cell.init(np.random.default_rng(0), "float64")
    bias = params.bias.copy()
    bias[:3] = -20  # of three input gates
    bias[4:8] = 20  # of the forget gates, which may
    bias[12:15] = 20
    observatory = lstmx.Observatory(cell, np.zeros((12, 2)), 1)
    assert observatory(0, params) == ()
    shut, stuck = observatory(1, params._replace(bias=bias))
    assert shut == (
        "shut",
        1,
        "the input gate of LSTM is dead: in 75% of the units it stays below 0.001 on the whole probe",
    )
    assert stuck.kind == "open"
    assert stuck.words.startswith("the output gate of LSTM is stuck: in 75% of the units it stays above 0.999")


@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_states_beyond_the_float_range_are_told(library):
    params = to(library, scaled(1e200))
    observatory = lstmx.Observatory(lstmx.SimpleRNN(1, 3, activation="relu"), np.ones((40, 2, 1)), 10)
    assert [alarm.kind for alarm in observatory(0, params)] == ["not finite"]
    assert np.isnan(observatory["horizon"]).all()
    assert not np.isnan(observatory["weight_norm"]).any()


def test_what_is_handed_in_and_not_finite_is_told_and_what_is_not_handed_in_is_not():
    cell = lstmx.LSTM(3, 4)
    observatory, params, _ = drawn(cell)
    broken = params._replace(bias=params.bias * np.nan)
    assert observatory(0, params) == ()
    assert observatory(1, params, gradient=params, training_loss=0.5) == ()
    (loss,) = observatory(2, params, training_loss=np.nan)
    (gradient,) = observatory(3, params, gradient=broken, training_loss=np.inf)
    assert str(loss) == "step 2: the training loss is not finite"
    assert str(gradient) == "step 3: the gradient norm is not finite"
    assert observatory.axes["given"] == ["training_loss", "gradient_norm", "update_norm"]
    nan = np.nan
    np.testing.assert_array_equal(
        observatory["given_finite"], [[nan] * 3, [1, 1, nan], [0, nan, nan], [0, 0, nan]]
    )
    assert observatory["finite"].all()
    assert observatory(4, params, update=broken)[0].words == "the update norm is not finite"


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: lstmx.Observatory(lstmx.LSTM, PROBE), TypeError, "cell is the class LSTM, not a cell"),
        (lambda: lstmx.Observatory(lstmx.Bidirectional(MODEL.cell), PROBE), TypeError, "both directions"),
        (lambda: lstmx.Observatory(MODEL.cell, [[1.0, 2.0]]), TypeError, "probe is a list"),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE[..., :1]), ValueError, r"probe has shape \(12, 3, 1\)"),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE[:0]),
            ValueError,
            r"expected \[T, \*batch, 2\] with at least",
        ),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE * np.float32("nan")),
            ValueError,
            "probe is nan first at step 0",
        ),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE, 0), ValueError, "every is 0"),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE, lag=12), ValueError, "lag is 12; expected less than the 12"),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE, loss="first"), ValueError, "loss is 'first'; expected"),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE, loss=[1.0]), TypeError, "loss is a list; expected"),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE, loss=np.ones((12, 3, 2), "float32")),
            ValueError,
            r"loss has shape \(12, 3, 2\); expected .* = \(12, 3, 5\)",
        ),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE, loss=np.ones((12, 3, 5))),
            TypeError,
            "loss is float64; .* is expected as float32",
        ),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE, loss=np.full((12, 3, 5), np.inf, "float32")),
            ValueError,
            "loss is inf first at step 0",
        ),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE, convert=lambda module: MODEL.cell)(0, None),
            TypeError,
            r"convert gives a LSTM; expected a pair \(cell, parameters\)",
        ),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE, convert=lambda module: (1.0, MODEL.cell))(0, None),
            TypeError,
            "what convert gives first is",
        ),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE).due(2.5), TypeError, "step is 2.5; expected an integer"),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE).due(-50), ValueError, "step is -50; expected"),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE).reached(12),
            ValueError,
            "lag is 12; expected less than the 12 steps",
        ),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE, convert="torch"),
            TypeError,
            "convert is a str; expected a func",
        ),
        (lambda: lstmx.Observatory(MODEL.cell, PROBE)(0, MODEL.init(0)), TypeError, "params is a ModelParams"),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE)(0, MODEL.cell.init(0, "float64")),
            TypeError,
            "probe is float32; the parameters are float64",
        ),
        (
            lambda: lstmx.Observatory(MODEL.cell, PROBE)["horizons"],
            KeyError,
            "no reading 'horizons'; those are finite",
        ),
        (
            lambda: lstmx.train(MODEL, MODEL.init(0), TASK.batch, observe=print),
            TypeError,
            "observe is a builtin_function_or_method; expected an Observatory",
        ),
        (
            lambda: lstmx.train(
                MODEL, MODEL.init(0), TASK.batch, observe=lstmx.Observatory(lstmx.LSTM(2, 6), PROBE)
            ),
            ValueError,
            r"observe is an observatory of LSTM\(input_size=2, hidden_size=6\); this model trains",
        ),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
