"""`continue_fixed_points` against bifurcations known in closed form."""

import math

import jax
import numpy as np
import pytest
from reference import is_in, to

import lstmx

CELL = lstmx.SimpleRNN(1, 1)
H = 0.9575040240772688  # h = tanh 2 h


def gain(weight, bias=0.0, dtype="float64"):
    arrays = np.zeros((1, 1)), np.array([[weight]]), np.array([bias])
    return lstmx.SimpleRNNParams(*(x.astype(dtype) for x in arrays))


def states(*numbers, dtype="float64"):
    return lstmx.SimpleRNNState(np.array(numbers, dtype)[:, None])


def places(found):
    return [(one.kind, one.value) for one in found.bifurcations]


def assert_places(found, expected, error=1e-12):
    assert [kind for kind, _ in places(found)] == [kind for kind, _ in expected]
    np.testing.assert_allclose([v for _, v in places(found)], [v for _, v in expected], rtol=0, atol=error)


# --------------------------------------------------------------------------------------------------- in one unit


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0, -2.0], [("branch point", 1), ("flip", -1)]),
        ([-2, 2], [("flip", -1), ("branch point", 1)]),
        ([0, 2, 4], [("branch point", 1)]),
        ([0, 1], [("branch point", 1)]),
        ([0.1, 0.9], []),
        ([0.5, -1], [("flip", -1)]),
    ],
)
def test_zero_splits_at_1_and_flips_at_minus_1(values, expected):
    """h ← tanh(w h): the eigenvalue at 0 is w."""
    found = lstmx.continue_fixed_points(CELL, gain, values, states(0.0))
    assert_places(found, expected)
    (branch,) = found.branches
    assert found.complete.all()
    assert {*map(float, values)} <= {*branch.values}
    np.testing.assert_allclose(branch.eigenvalues[:, 0], branch.values, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(branch.states.hidden, 0)
    assert branch.values[-1] == values[-1]


@pytest.mark.parametrize("weights", [[0.99, 0.5], [0.5, 0.99]])
def test_a_slow_mode_is_not_a_singular_one_in_float32(weights):
    found = lstmx.continue_fixed_points(
        CELL, lambda w: gain(w, dtype="float32"), weights, states(0.0, dtype="float32")
    )
    assert_places(found, [])
    assert found.complete.all()


def test_checkpoints_are_joined_by_straight_lines():
    """The weight goes from 0.5 to 2 and to −2: 1 after a third of the first line, a quarter of the other."""
    found = lstmx.continue_fixed_points(CELL, [gain(0.5), gain(2.0), gain(-2.0)], [0, 1, 2], states(0.0))
    assert_places(found, [("branch point", 1 / 3), ("branch point", 1.25), ("flip", 1.75)])
    found = lstmx.continue_fixed_points(CELL, [gain(-2.0), gain(2.0), gain(0.5)], [200, 100, 0], states(0.0))
    assert_places(found, [("flip", 175), ("branch point", 125), ("branch point", 100 / 3)], 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.5, 3.0])
def test_folds_lie_where_the_closed_form_says(library, weight):
    """tanh(w h + b) touches h where w (1 − h²) = 1, at b = ±(w h − artanh h), 1e-8 and better."""
    root = math.sqrt(1 - 1 / weight)
    fold = weight * root - math.atanh(root)

    def bias(value):
        return to(library, gain(weight, value))

    start = -1.0
    for _ in range(200):
        start = math.tanh(weight * start - 2)
    found = lstmx.continue_fixed_points(CELL, bias, [-2.0, 2.0], to(library, states(start)))
    assert_places(found, [("fold", fold), ("fold", -fold)], 1e-12)
    np.testing.assert_allclose([p.state.hidden[0] for p in found.bifurcations], [-root, root], rtol=0, atol=1e-6)
    (branch,) = found.branches
    assert branch.values[0] == -branch.values[-1] == -2
    assert is_in(library, branch.states)
    h = np.asarray(branch.states.hidden)[:, 0]
    np.testing.assert_allclose(np.tanh(weight * h + branch.values), h, rtol=0, atol=1e-12)
    assert branch.stable[[0, -1]].all()
    assert not branch.stable[np.abs(h) < 0.9 * root].any()


def test_both_arms_of_a_pitchfork_are_one_branch():
    found = lstmx.continue_fixed_points(CELL, gain, [2.0, 0.5], states(H, 0.0, -H))
    assert_places(found, [("branch point", 1), ("branch point", 1)], 1e-8)
    assert [one.branch for one in found.bifurcations] == [0, 1]
    assert [branch.values[-1] for branch in found.branches] == [2.0, 0.5]
    np.testing.assert_allclose(found.branches[0].states.hidden[[0, -1], 0], [H, -H], rtol=0, atol=1e-10)


@pytest.mark.slow
def test_a_bias_turns_the_pitchfork_into_a_fold():
    points = lstmx.fixed_points(CELL, gain(2.0, 0.01), None, states(0.5))
    found = lstmx.continue_fixed_points(CELL, lambda weight: gain(weight, 0.01), [2.0, 0.2], points)
    (fold,) = found.bifurcations
    h = float(fold.state.hidden[0])
    assert fold.kind == "fold"
    np.testing.assert_allclose(fold.value * (1 - h**2), 1, rtol=0, atol=1e-7)
    np.testing.assert_allclose(math.tanh(fold.value * h + 0.01), h, rtol=0, atol=1e-12)
    assert len(found.branches) == 2


def test_in_float32_places_have_its_accuracy():
    def one(weight):
        return gain(weight, dtype="float32")

    found = lstmx.continue_fixed_points(CELL, one, [2.0, -2.0], states(0.0, dtype="float32"))
    assert_places(found, [("branch point", 1), ("flip", -1)], 1e-6)
    assert found.branches[0].states.hidden.dtype == "float32"


# -------------------------------------------------------------------------------------------------- in two units


@pytest.mark.parametrize("angle", [0.7, 2.0])
def test_a_rotation_has_its_neimark_sacker_point_at_1(angle):
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])

    def scaled(value):
        return lstmx.SimpleRNNParams(np.zeros((1, 2)), value * turn, np.zeros(2))

    zero = lstmx.SimpleRNNState(np.zeros((1, 2)))
    found = lstmx.continue_fixed_points(lstmx.SimpleRNN(1, 2), scaled, [0.5, 1.7], zero)
    assert_places(found, [("Neimark–Sacker point", 1)])
    np.testing.assert_allclose(np.abs(np.angle(found.bifurcations[0].eigenvalues)), angle, rtol=0, atol=1e-9)


@pytest.mark.sample(1)
def test_an_input_is_followed(library):
    """An input of b through a kernel of 1 is a bias of b."""
    params = to(library, gain(1.5)._replace(input_kernel=np.ones((1, 1))))
    start = -0.9
    for _ in range(200):
        start = math.tanh(1.5 * start - 1)
    found = lstmx.continue_fixed_points(
        CELL, params, [-1, 1], to(library, states(start)), lambda value: to(library, np.array([value]))
    )
    root = math.sqrt(1 / 3)
    fold = 1.5 * root - math.atanh(root)
    assert_places(found, [("fold", fold), ("fold", -fold)])


def test_the_zero_state_of_an_lstm_splits_at_its_critical_gain():
    """σ(b_f) + σ(b_i) σ(b_o) g = 1 with U_g = g: V28."""
    cell = lstmx.LSTM(1, 1)

    def recurrent(value):
        bias = np.array([0.0, 1.0, 0.0, 2.0])
        return lstmx.LSTMParams(np.zeros((1, 4)), np.array([[0, 0, value, 0]]), bias)

    zero = lstmx.LSTMState(np.zeros((1, 1)), np.zeros((1, 1)))
    found = lstmx.continue_fixed_points(cell, recurrent, [0.1, 2.0], zero)
    sigma = [1 / (1 + math.exp(-b)) for b in (0.0, 1.0, 2.0)]
    assert_places(found, [("branch point", (1 - sigma[1]) / (sigma[0] * sigma[2]))])


def test_several_modes_that_cross_at_once_are_seen():
    """Two units that do not see each other lose their stability together."""

    def both(value):
        return lstmx.SimpleRNNParams(np.zeros((1, 2)), value * np.eye(2), np.zeros(2))

    zero = lstmx.SimpleRNNState(np.zeros((1, 2)))
    found = lstmx.continue_fixed_points(lstmx.SimpleRNN(1, 2), both, [0.5, 2], zero)
    assert_places(found, [("branch point", 1)])
    assert found.branches[0].unstable_modes[[0, -1]].tolist() == [0, 2]


def test_the_words_say_where():
    found = lstmx.continue_fixed_points(CELL, gain, [2.0, -2.0], states(0.0))
    assert "1 branch of fixed points with 2 bifurcations" in str(found)
    assert "    branch point at 1\n    flip at -1" in str(found)
    assert repr(found) == "Continuation(1 branches, 2 bifurcations)"
    assert repr(found.bifurcations) == "(Bifurcation(branch point at 1), Bifurcation(flip at -1))"
    cut = lstmx.continue_fixed_points(CELL, gain, [2.0, -2.0], states(0.0), steps=3)
    assert not cut.complete.any()
    assert "WARNING: it ends before the range does: try more steps=" in str(cut)


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"values": [1, 2]}, ValueError, "number 0, where I − J is singular at the value 1"),
        ({"points": states(0.5)}, ValueError, "number 0, that moves by .* at the value 2"),
        ({"points": None}, TypeError, "points is None; expected those from fixed_points"),
        ({"points": states()}, ValueError, "axes .* of points hold no sequence"),
        ({"values": [1.0]}, ValueError, "values has 1 number; expected at least two"),
        ({"values": [1.0, 1.0]}, ValueError, "values is .*expected at least two numbers that rise or fall"),
        ({"values": [0, 2, 1]}, ValueError, "values is .*expected at least two numbers that rise or fall"),
        ({"values": [0, math.nan]}, ValueError, "values is nan; expected"),
        ({"values": "no"}, TypeError, "values is 'no'; expected"),
        ({"params_of": gain(1.0)}, TypeError, "params_of is a SimpleRNNParams, and x is no function"),
        (
            {"params_of": lambda value: None},
            TypeError,
            r"params_of\(2\) is a NoneType; .* expects SimpleRNNParams",
        ),
        ({"params_of": lambda value: gain(math.inf)}, ValueError, r"params_of\(2\) holds NaN or infinity"),
        ({"params_of": [gain(1.0)] * 3}, ValueError, "params_of has 3 checkpoints and values 2 numbers"),
        ({"params_of": [gain(1.0), 3]}, TypeError, r"params_of\[1\] is a int"),
        ({"steps": 1}, ValueError, "steps is 1; expected an integer of at least 2"),
        ({"x": lambda value: np.zeros(3)}, ValueError, r"x has shape \(3,\)"),
    ],
)
def test_what_is_none_is_refused(given, error, text):
    arguments = {"params_of": gain, "values": [2.0, 0.5], "points": states(0.0)} | given
    with pytest.raises(error, match=text):
        lstmx.continue_fixed_points(CELL, **arguments)


def test_within_a_transformation_it_says_that_it_cannot_run():
    with pytest.raises(TypeError, match="cannot run inside a JAX transformation"):
        jax.jit(lambda s: lstmx.continue_fixed_points(CELL, gain, [2.0, 0.5], s).complete)(states(0.0))
