"""The door: what is wrong, what was expected, before anything runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import draw_pass, random_history, to

import lstmx
from lstmx import checks

FORWARD = [lstmx.run, lstmx.record]


@pytest.fixture(params=FORWARD, ids=lambda f: f.__name__)
def forward(request):
    return request.param


@pytest.fixture
def given(library):
    """An LSTM with 3 features and 4 units, its float32 parameters, and inputs [5, 2, 3]."""
    cell, params, xs, state = draw_pass(lstmx.LSTM, length=5, batch=(2,), dtype="float32")
    return cell, *to(library, (params, xs, state))


# ------------------------------------------------------------------------------------------------ inputs


def test_a_wrong_number_of_features_is_named(forward, given):
    cell, params, xs, _ = given
    message = (
        r"xs has 2 features in its last axis; this LSTM expects input_size=3.*\[T, \*batch, 3\], got \(5, 2, 2\)"
    )
    with pytest.raises(ValueError, match=message):
        forward(cell, params, xs[..., :2])


def test_one_axis_is_too_few(forward, given):
    cell, params, xs, _ = given
    with pytest.raises(ValueError, match=r"xs has 1 axes; expected at least 2, time first"):
        forward(cell, params, xs[0, 0])


def test_no_time_steps_are_refused(forward, given):
    cell, params, xs, _ = given
    with pytest.raises(ValueError, match=r"xs has no time steps \(T = 0\); expected at least one"):
        forward(cell, params, xs[:0])


@pytest.mark.parametrize("dtype", ["float64", "int32", "float16"])
def test_another_dtype_is_not_cast_in_silence(forward, given, dtype):
    cell, params, xs, _ = given
    with pytest.raises(TypeError, match=rf"xs is {dtype}; the parameters are float32. Nothing is cast in silence"):
        forward(cell, params, xs.astype(dtype))


@pytest.mark.parametrize("xs", [[[1.0, 2.0, 3.0]], None, 1.0])
def test_a_list_is_no_array(forward, given, xs):
    cell, params, _, _ = given
    with pytest.raises(TypeError, match=rf"xs is a {type(xs).__name__}; expected a NumPy or JAX array"):
        forward(cell, params, xs)


def test_the_wording_holds_under_jit(given):
    cell, params, xs, _ = given
    with pytest.raises(ValueError, match="xs has 2 features in its last axis"):
        jax.jit(lambda xs: lstmx.run(cell, params, xs))(xs[..., :2])


@pytest.mark.parametrize("keep", ["foo", "", None, "All"])
def test_keep_is_one_of_two_words(given, keep):
    cell, params, xs, _ = given
    with pytest.raises(ValueError, match=rf"keep is {keep!r}; expected one of 'all', 'states'"):
        lstmx.record(cell, params, xs, keep=keep)


# ----------------------------------------------------------------------------------------------- states


def test_a_state_of_another_type_is_named(forward, given):
    cell, params, xs, state = given
    with pytest.raises(TypeError, match=r"state is a tuple; LSTM\(.*\) expects LSTMState"):
        forward(cell, params, xs, tuple(state))
    with pytest.raises(TypeError, match="state is a GRUState"):
        forward(cell, params, xs, lstmx.GRUState(state.hidden))


def test_a_state_is_not_broadcast(forward, given):
    cell, params, xs, state = given
    one = type(state)(*(field[0] for field in state))
    with pytest.raises(ValueError, match=r"state.hidden has shape \(4,\); expected .* = \(2, 4\)"):
        forward(cell, params, xs, one)
    with pytest.raises(ValueError, match=r"state.cell has shape \(2, 3\); expected .* = \(2, 4\)"):
        forward(cell, params, xs, state._replace(cell=state.cell[:, :3]))


def test_a_state_is_not_cast(forward, given):
    cell, params, xs, state = given
    with pytest.raises(TypeError, match=r"state.cell is float64; .* float32"):
        forward(cell, params, xs, state._replace(cell=state.cell.astype("float64")))
    with pytest.raises(TypeError, match=r"state\.hidden is a list"):
        forward(cell, params, xs, state._replace(hidden=[0.0] * 4))


# ------------------------------------------------------------------------------------------- parameters


def test_parameters_of_another_cell_are_named(forward, given, library):
    _, params, xs, _ = given
    with pytest.raises(
        TypeError, match=r"params is a LSTMParams; GRU\(.*\) expects GRUParams, as made by cell.init"
    ):
        forward(lstmx.GRU(3, 4), params, xs)
    with pytest.raises(TypeError, match="params is a dict"):
        forward(lstmx.LSTM(3, 4), params._asdict(), xs)


def test_parameters_of_another_size_are_named(forward, given):
    _, params, xs, _ = given
    message = r"params.input_kernel has shape \(3, 16\); LSTM\(.*hidden_size=5.*\) expects \(3, 20\)"
    with pytest.raises(ValueError, match=message):
        forward(lstmx.LSTM(3, 5), params, xs)
    with pytest.raises(ValueError, match=r"params.bias has shape \(4, 16\)"):
        forward(lstmx.LSTM(3, 4), params._replace(bias=params.recurrent_kernel), xs)


def test_parameters_hold_one_float_dtype(forward, given):
    cell, params, xs, _ = given
    with pytest.raises(TypeError, match="params hold float32, float64; expected float32 or float64 throughout"):
        forward(cell, params._replace(bias=params.bias.astype("float64")), xs)
    whole = type(params)(*(value.astype("int32") for value in params))
    with pytest.raises(TypeError, match="params hold int32; expected float32 or float64"):
        forward(cell, whole, xs)
    with pytest.raises(TypeError, match=r"params\.bias is a list"):
        forward(cell, params._replace(bias=[0.0] * 16), xs)


# ------------------------------------------------------------------------------------------ construction


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 8), ValueError, "input_size is 0; expected an integer of at least 1"),
        ((3, -1), ValueError, "hidden_size is -1; expected an integer of at least 1"),
        ((3, 2.5), TypeError, "hidden_size is 2.5; expected an integer of at least 1"),
        (("3", 8), TypeError, "input_size is '3'; expected an integer"),
        ((True, 8), TypeError, "input_size is True; expected an integer"),
        ((None, 8), TypeError, "input_size is None; expected an integer"),
    ],
)
def test_sizes_are_positive_integers(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(*arguments)


@pytest.mark.parametrize("forget_bias", [float("nan"), float("inf"), "1", None, True])
def test_the_forget_bias_is_a_finite_number(forget_bias):
    with pytest.raises(ValueError, match=rf"forget_bias is {forget_bias!r}; expected a finite number"):
        lstmx.LSTM(3, 8, forget_bias=forget_bias)


def test_the_forget_bias_may_be_a_numpy_number():
    cell = lstmx.LSTM(3, 8, forget_bias=np.float32(2.0))
    assert cell == lstmx.LSTM(3, 8, forget_bias=2.0)
    assert repr(cell) == repr(lstmx.LSTM(3, 8, forget_bias=2))
    assert cell.init(np.random.default_rng(0)).bias[8] == 2


def test_no_dtype_is_no_dtype(kind):
    with pytest.raises(ValueError, match="dtype is None; expected float32 or float64"):
        kind(3, 8).init(0, dtype=None)


def test_a_mask_is_not_lost_in_silence(kind):
    cell = kind(3, 8)
    xs = np.ma.masked_invalid(np.full((5, 3), np.nan, "float32"))
    for call in (lstmx.run, lstmx.record):
        with pytest.raises(TypeError, match="xs is a masked array, whose mask nothing here reads"):
            call(cell, cell.init(np.random.default_rng(0)), xs)


def test_sizes_may_be_numpy_integers(kind):
    assert kind(np.int64(3), np.int32(8)) == kind(3, 8)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (True, TypeError, "key is a bool; expected an int, a numpy.random.Generator or a JAX key"),
        ("seed", TypeError, "key is a str; expected an int, a numpy.random.Generator or a JAX key"),
        (1.0, TypeError, "key is a float"),
        (None, TypeError, "key is a NoneType"),
        (np.random, TypeError, "key is a module"),
        (-1, ValueError, "key is -1; a seed is an integer from 0"),
        (2**70, ValueError, f"key is {2**70}; a seed is an integer from 0"),
    ],
)
def test_a_key_is_a_seed_a_generator_or_a_jax_key(kind, key, error, message):
    with pytest.raises(error, match=message):
        kind(3, 8).init(key)


def test_float64_parameters_need_float64_in_jax(kind):
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"float64 switched off .*jax_enable_x64.* numpy.random.Generator"):
            kind(3, 8).init(0, dtype="float64")
        assert kind(3, 8).init(np.random.default_rng(0), dtype="float64").bias.dtype == "float64"


# ----------------------------------------------------------------------------------------------- values


def test_finite_names_the_first_step_sequence_and_unit(library):
    values = np.zeros((4, 2, 3))
    checks.finite("values", to(library, values))
    values[3, 0, 0] = np.inf
    values[2, 1, 2] = np.nan
    message = r"values is nan first at step 2, sequence \(1,\), unit 2; expected finite numbers"
    with pytest.raises(ValueError, match=message):
        checks.finite("values", to(library, values))
    with pytest.raises(ValueError, match=r"values is inf first at step 3, feature 0"):
        checks.finite("values", to(library, values[:, 0]), "feature")


def test_what_is_not_finite_in_a_history_is_named(kind, library):
    history = random_history(kind, batch=(2,))
    checks.finite_history(to(library, history))
    message = r"hidden_state is nan first at step 4, sequence \(1,\), unit 2"
    history.states.hidden[4, 1, 2] = np.nan
    with pytest.raises(ValueError, match=message):
        checks.finite_history(to(library, history))
    message = r"inputs is inf first at step 5, sequence \(0,\), feature 1"
    history.inputs[5, 0, 1] = np.inf
    with pytest.raises(ValueError, match=message):
        checks.finite_history(to(library, history))
    history.params.bias[2] = np.nan
    with pytest.raises(ValueError, match=r"params\.bias holds NaN or infinity"):
        checks.finite_history(to(library, history))


def test_a_cell_state_that_is_not_finite_is_named(library):
    history = random_history(lstmx.LSTM)
    history.states.cell[6, 0] = -np.inf
    with pytest.raises(ValueError, match="cell_state is -inf first at step 6, unit 0"):
        checks.finite_history(to(library, history))


def test_values_under_a_transformation_are_not_read():
    jax.jit(lambda x: checks.finite("values", x))(jnp.full((2, 3), jnp.nan))
