"""Schemes that `init` applies: the memory they set, and the distributions that frameworks draw from."""

import functools
import math

import jax
import numpy as np
import pytest
from reference import CELLS, assert_same, is_in

import lstmx
from lstmx.draws import Draws

D, H = 64, 256
WITH_GATES = [lstmx.LSTM, lstmx.GRU]


def init(cell, library, dtype="float64", scheme=(), seed=0):
    """`cell.init` in the named library, under JAX as one program."""
    if library == "numpy":
        return cell.init(np.random.default_rng(seed), dtype, scheme)
    return jax.jit(lambda key: cell.init(key, dtype, scheme))(jax.random.key(seed))


def block(cell, array, gate):
    """A gate's part of the last axis, in NumPy."""
    start = cell.gate_blocks[gate] * cell.hidden_size
    return np.asarray(array)[..., start : start + cell.hidden_size]


# ---------------------------------------------------------------------------------------------------- the memory


def test_chrono_draws_within_its_range_and_opposes_the_input_gate(library):
    cell = lstmx.LSTM(2, 200)
    params = init(cell, library, scheme=lstmx.schemes.chrono(50))
    forget, into = block(cell, params.bias, "forget_gate"), block(cell, params.bias, "input_gate")
    assert is_in(library, params)
    assert 0 <= forget.min() < math.log(3)
    assert math.log(45) < forget.max() < math.log(49)
    np.testing.assert_array_equal(into, -forget)
    np.testing.assert_array_equal(block(cell, params.bias, "output_gate"), 0)
    np.testing.assert_array_equal(np.asarray(params.bias)[2 * 200 : 3 * 200], 0)


def test_chrono_sets_a_grus_update_gate_alone():
    cell = lstmx.GRU(2, 200)
    plain, params = (init(cell, "numpy", scheme=scheme) for scheme in ((), lstmx.schemes.chrono(50)))
    update = block(cell, params.bias, "update_gate")
    assert update.min() >= 0
    assert math.log(45) < update.max() < math.log(49)
    np.testing.assert_array_equal(block(cell, params.bias, "reset_gate"), 0)
    np.testing.assert_array_equal(np.asarray(params.bias)[2 * 200 :], 0)
    assert_same((params.input_kernel, params.recurrent_kernel), (plain.input_kernel, plain.recurrent_kernel))


def retention_biases(cell, scheme, times):
    """Biases of the retention gate that a scheme draws one time after the other."""
    shapes = cell.parameter_shapes()
    params, draws = type(shapes)(*map(np.zeros, shapes)), Draws(np.random.default_rng(0))
    return np.concatenate(
        [block(cell, scheme(cell, params, draws).bias, cell.retention_gate) for _ in range(times)]
    )


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (1000, {1: 0.993773, 10: 0.951069, 100: 0.723539, 1000: 0.148609}),
        (100, {1: 0.960081, 10: 0.732589, 100: 0.149648}),
    ],
)
@pytest.mark.parametrize("kind", WITH_GATES)
def test_chrono_has_the_known_retention(kind, longest, expected):
    """V32, with 10⁴ units."""
    biases = retention_biases(kind(1, 100), lstmx.schemes.chrono(longest), 100)
    for lag, value in expected.items():
        np.testing.assert_allclose(np.exp(-lag * np.logaddexp(0, -biases)).mean(), value, rtol=0.02)


@pytest.mark.sample(1)
def test_uniform_gates_are_uniform(library):
    cell = lstmx.LSTM(1, H)
    params = init(cell, library, scheme=lstmx.schemes.uniform_gates())
    gates = np.sort(1 / (1 + np.exp(-block(cell, params.bias, "forget_gate"))))
    assert 1 / H <= gates[0] < gates[-1] <= 1 - 1 / H
    assert np.abs(gates - (np.arange(H) + 0.5) / H).max() < 1.63 / math.sqrt(H)  # Kolmogorov, 1 %
    np.testing.assert_array_equal(block(cell, params.bias, "input_gate"), 0)


@pytest.mark.parametrize("kind", WITH_GATES)
def test_uniform_gates_have_the_known_retention(kind):
    """V33 for 256 units, drawn 40 times."""
    biases = retention_biases(kind(1, H), lstmx.schemes.uniform_gates(), 40)
    for lag, value, tolerance in ((1, 0.5, 0.02), (10, 0.0877639, 0.05), (100, 0.0067206, 0.2)):
        np.testing.assert_allclose(np.exp(-lag * np.logaddexp(0, -biases)).mean(), value, rtol=tolerance)


@pytest.mark.parametrize("kind", WITH_GATES)
def test_a_unit_forget_bias_fills_the_retention_gate(kind):
    cell = kind(2, 3)
    for scheme, value in ((lstmx.schemes.unit_forget_bias(), 1.0), (lstmx.schemes.unit_forget_bias(-2.5), -2.5)):
        params = init(cell, "numpy", "float32", scheme)
        np.testing.assert_array_equal(block(cell, params.bias, cell.retention_gate), np.float32(value))
        assert np.count_nonzero(np.asarray(params.bias)) == 3
        assert params.bias.dtype == "float32"


def test_identity_makes_every_block_the_identity(kind):
    cell = kind(2, 3)
    plain, params = (init(cell, "numpy", scheme=scheme) for scheme in ((), lstmx.schemes.identity(0.7)))
    blocks = params.recurrent_kernel.shape[1] // 3
    np.testing.assert_array_equal(params.recurrent_kernel, np.tile(0.7 * np.eye(3), blocks))
    assert_same(params._replace(recurrent_kernel=params.bias), plain._replace(recurrent_kernel=plain.bias))


@pytest.mark.parametrize(
    ("scheme", "gain"),
    [(lstmx.schemes.identity(), 1), (lstmx.schemes.identity(0.5), 0.5), (lstmx.schemes.orthogonal(0.9), 0.9)],
)
def test_a_simple_network_at_rest_keeps_all_directions_alike(scheme, gain, library):
    cell = lstmx.SimpleRNN(2, 8)
    params = init(cell, library, scheme=scheme)
    history = lstmx.record(cell, type(params)(*map(np.asarray, params)), np.zeros((1, 2)))
    np.testing.assert_allclose(lstmx.isometry(history).singular_values, np.full((1, 8), gain), rtol=1e-12)


def test_orthogonal_draws_every_block_anew(kind):
    cell = kind(2, 6)
    kernel = cell.init(np.random.default_rng(0), "float64", lstmx.schemes.orthogonal(1.3)).recurrent_kernel
    parts = np.split(kernel, kernel.shape[1] // 6, axis=1)
    for part in parts:
        np.testing.assert_allclose(part.T @ part, 1.69 * np.eye(6), rtol=0, atol=1e-13)
    assert all(np.abs(a - b).max() > 0.1 for k, a in enumerate(parts) for b in parts[:k])


# -------------------------------------------------------------------------------------------------- the frameworks

# standard deviations of input kernel and recurrent kernel of the frameworks' own layers, measured on D=64, H=256
MEASURED = {
    ("pytorch", lstmx.LSTM): (0.0361, 0.0361),
    ("pytorch", lstmx.GRU): (0.0361, 0.0361),
    ("pytorch", lstmx.SimpleRNN): (0.0361, 0.0361),
    ("keras", lstmx.LSTM): (0.0427, 0.0312),
    ("keras", lstmx.GRU): (0.0490, 0.0361),
    ("keras", lstmx.SimpleRNN): (0.0788, 0.0625),
    ("flax", lstmx.LSTM): (0.1250, 0.0625),
    ("flax", lstmx.GRU): (0.1250, 0.0625),
    ("flax", lstmx.SimpleRNN): (0.1242, 0.0625),
    ("haiku", lstmx.LSTM): (0.0491, 0.0491),
    ("haiku", lstmx.GRU): (0.1250, 0.0625),
    ("haiku", lstmx.SimpleRNN): (0.1101, 0.0548),
}
# greatest magnitudes that these distributions allow
BOUNDS = {
    ("pytorch", lstmx.LSTM): (1 / 16, 1 / 16),
    ("pytorch", lstmx.GRU): (1 / 16, 1 / 16),
    ("pytorch", lstmx.SimpleRNN): (1 / 16, 1 / 16),
    ("keras", lstmx.LSTM): (math.sqrt(6 / (64 + 1024)), 1.0),
    ("keras", lstmx.GRU): (math.sqrt(6 / (64 + 768)), 1.0),
    ("keras", lstmx.SimpleRNN): (math.sqrt(6 / (64 + 256)), 1.0),
    ("flax", lstmx.LSTM): (2 / 8 / 0.87962566, 1.0),
    ("flax", lstmx.GRU): (2 / 8 / 0.87962566, 1.0),
    ("flax", lstmx.SimpleRNN): (2 / 8 / 0.87962566, 1.0),
    ("haiku", lstmx.LSTM): (2 / math.sqrt(320), 2 / math.sqrt(320)),
    ("haiku", lstmx.GRU): (2 / 8 / 0.87962566, 2 / 16 / 0.87962566),
    ("haiku", lstmx.SimpleRNN): (2 / 8, 2 / 16),
}


@functools.cache
@functools.cache
def default(framework, kind, library="numpy"):
    """Parameters of 256 units with 64 inputs, in NumPy."""
    params = init(kind(D, H), library, scheme=lstmx.schemes.defaults_of(framework))
    assert is_in(library, params)
    return type(params)(*map(np.asarray, params))


@pytest.mark.parametrize(("framework", "kind"), MEASURED, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_kernels_are_spread_as_the_frameworks_own(framework, kind):
    params, bounds = default(framework, kind), BOUNDS[framework, kind]
    for kernel, deviation, bound in zip(params[:2], MEASURED[framework, kind], bounds, strict=True):
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
        assert abs(kernel.mean()) < 4 * deviation / math.sqrt(kernel.size)
        assert np.abs(kernel).max() <= bound * (1 + 1e-6)
        if bound < 1:  # uniform draws, and normal ones cut off at two deviations, come near it
            assert np.abs(kernel).max() > 0.98 * bound


@pytest.mark.sample(1)
@pytest.mark.parametrize("framework", ["pytorch", "keras", "flax", "haiku"])
def test_jax_draws_from_the_same_distributions(framework):
    params, expected = default(framework, lstmx.LSTM, "jax"), MEASURED[framework, lstmx.LSTM]
    for kernel, deviation, bound in zip(params[:2], expected, BOUNDS[framework, lstmx.LSTM], strict=True):
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
        assert np.abs(kernel).max() <= bound * (1 + 1e-6)
    np.testing.assert_allclose(params.bias.mean(), default(framework, lstmx.LSTM).bias.mean(), atol=5e-3)


@pytest.mark.parametrize("kind", CELLS)
def test_pytorchs_two_biases_are_one_sum(kind):
    """A uniform's deviation in ±1/16, times √2 where two are added: 0.0361 and 0.0510."""
    params = default("pytorch", kind)
    both = params.bias if kind is not lstmx.GRU else params.bias[: 2 * H]
    np.testing.assert_allclose(both.std(), 0.0510, rtol=0.08)
    assert 1 / 16 < np.abs(both).max() <= 1 / 8
    if kind is lstmx.GRU:
        for own in (params.bias[2 * H :], params.candidate_bias):
            np.testing.assert_allclose(own.std(), 0.0361, rtol=0.08)
            assert np.abs(own).max() <= 1 / 16
        assert np.abs(np.corrcoef(params.bias[2 * H :], params.candidate_bias)[0, 1]) < 0.25


@pytest.mark.parametrize("framework", ["keras", "flax", "haiku"])
@pytest.mark.parametrize("kind", CELLS)
def test_other_biases_are_zero_but_a_forget_gates(framework, kind):
    params = default(framework, kind)
    expected = np.zeros_like(params.bias)
    if kind is lstmx.LSTM and framework != "flax":
        expected[H : 2 * H] = 1
    np.testing.assert_array_equal(params.bias, expected)
    if kind is lstmx.GRU:
        np.testing.assert_array_equal(params.candidate_bias, 0)


def test_a_cells_own_forget_bias_gives_way():
    cell = lstmx.LSTM(2, 3, forget_bias=5.0)
    for framework, value in (("keras", 1.0), ("flax", 0.0), ("haiku", 1.0)):
        bias = cell.init(np.random.default_rng(0), scheme=lstmx.schemes.defaults_of(framework)).bias
        np.testing.assert_array_equal(block(cell, bias, "forget_gate"), value)
    bias = cell.init(np.random.default_rng(0), scheme=lstmx.schemes.defaults_of("pytorch")).bias
    assert np.abs(bias).max() <= 2 / math.sqrt(3)


@pytest.mark.parametrize("kind", CELLS)
def test_keras_draws_one_recurrent_kernel_with_orthonormal_rows(kind):
    kernel = default("keras", kind).recurrent_kernel
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(H), rtol=0, atol=1e-12)
    if kind is not lstmx.SimpleRNN:
        own = kernel[:, :H]
        assert np.abs(own @ own.T - np.eye(H)).max() > 0.1  # a block alone is not orthogonal


@pytest.mark.parametrize("kind", CELLS)
def test_flax_draws_orthogonal_blocks(kind):
    kernel = default("flax", kind).recurrent_kernel
    for part in np.split(kernel, kernel.shape[1] // H, axis=1):
        np.testing.assert_allclose(part @ part.T, np.eye(H), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("schemes", "radius"),
    [
        ([lstmx.schemes.defaults_of("pytorch")], 0.638),
        ([lstmx.schemes.defaults_of("keras")], 0.854),
        ([lstmx.schemes.defaults_of("flax")], 0.750),
        ([lstmx.schemes.defaults_of("flax"), lstmx.schemes.unit_forget_bias()], 0.981),
        ([lstmx.schemes.defaults_of("flax"), lstmx.schemes.chrono(1000)], 0.9992),
    ],
    ids=["pytorch", "keras", "flax", "flax with bias", "chrono"],
)
def test_a_frameworks_network_at_rest_has_the_known_spectral_radius(schemes, radius):
    """V45, measured on 256 units; 128 here."""
    cell = lstmx.LSTM(32, 128)
    params = cell.init(np.random.default_rng(0), "float64", schemes)
    states = lstmx.record(cell, params, np.zeros((400, 32)), keep="states")
    found = np.abs(np.linalg.eigvals(lstmx.jacobians(states[399:])[0])).max()
    np.testing.assert_allclose(found, radius, rtol=0.05)


# ------------------------------------------------------------------------------------------------------ using them


@pytest.mark.slow
def test_a_key_gives_the_same_parameters_again(library):
    schemes = [lstmx.schemes.defaults_of("pytorch"), lstmx.schemes.chrono(100)]
    first, again, other = (init(lstmx.LSTM(2, 5), library, "float32", schemes, seed) for seed in (3, 3, 4))
    assert_same(again, first)
    assert all(np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-3 for a, b in zip(first, other, strict=True))


@pytest.mark.slow
def test_an_int_seeds_jax():
    params = lstmx.GRU(2, 5).init(3, scheme=lstmx.schemes.defaults_of("haiku"))
    assert_same(params, lstmx.GRU(2, 5).init(jax.random.key(3), scheme=lstmx.schemes.defaults_of("haiku")))


def test_schemes_are_applied_in_order():
    cell = lstmx.LSTM(2, 4)

    def made(*schemes, kind=list):
        return cell.init(np.random.default_rng(0), "float64", kind(schemes))

    np.testing.assert_array_equal(made(lstmx.schemes.chrono(9), lstmx.schemes.unit_forget_bias(2)).bias[4:8], 2)
    chrono = made(lstmx.schemes.unit_forget_bias(2), lstmx.schemes.chrono(9))
    assert (chrono.bias[4:8] != 2).all()
    np.testing.assert_array_equal(
        made(lstmx.schemes.identity(), lstmx.schemes.orthogonal()).recurrent_kernel[0, 1] != 0, True
    )
    np.testing.assert_array_equal(
        made(lstmx.schemes.orthogonal(), lstmx.schemes.identity()).recurrent_kernel[:, :4], np.eye(4)
    )
    assert_same(made(lstmx.schemes.chrono(9), kind=tuple), made(lstmx.schemes.chrono(9)))
    assert_same(made(), cell.init(np.random.default_rng(0), "float64"))
    assert_same(
        made(lstmx.schemes.chrono(9)), cell.init(np.random.default_rng(0), "float64", lstmx.schemes.chrono(9))
    )


def test_a_function_of_ones_own_is_a_scheme(library):
    def doubled(cell, params, draws):
        assert cell == lstmx.SimpleRNN(2, 3)
        return params._replace(bias=draws.xp.full((3,), 2, dtype=params.bias.dtype))

    params = init(lstmx.SimpleRNN(2, 3), library, "float32", doubled)
    np.testing.assert_array_equal(params.bias, [2, 2, 2])
    assert is_in(library, params)


@pytest.mark.sample(2)
def test_float32_parameters_stay_float32(kind, library):
    schemes = [
        lstmx.schemes.orthogonal(0.5),
        lstmx.schemes.defaults_of("pytorch"),
        lstmx.schemes.defaults_of("haiku"),
        lstmx.schemes.identity(2),
    ]
    if kind is not lstmx.SimpleRNN:
        schemes += [lstmx.schemes.chrono(10), lstmx.schemes.uniform_gates(), lstmx.schemes.unit_forget_bias(3)]
    params = init(kind(2, 3), library, "float32", schemes)
    assert {x.dtype for x in params} == {np.dtype("float32")}


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("longest", [2, 1, -5, math.inf, math.nan, "10", None])
def test_chrono_needs_more_than_two_steps(longest):
    with pytest.raises(ValueError, match=r"longest is .*; expected a finite number of steps over 2"):
        lstmx.schemes.chrono(longest)


@pytest.mark.parametrize(
    "scheme", [lstmx.schemes.chrono(10), lstmx.schemes.uniform_gates(), lstmx.schemes.unit_forget_bias()]
)
def test_a_cell_without_a_gate_cannot_set_it(scheme):
    with pytest.raises(ValueError, match="sets the gate that multiplies the old state; a SimpleRNN has none"):
        lstmx.SimpleRNN(2, 3).init(0, scheme=scheme)


def test_uniform_gates_need_two_units():
    with pytest.raises(ValueError, match="has H = 1, not 2 or more"):
        lstmx.LSTM(2, 1).init(np.random.default_rng(0), scheme=lstmx.schemes.uniform_gates())
    two = lstmx.LSTM(2, 2).init(np.random.default_rng(0), scheme=lstmx.schemes.uniform_gates())
    np.testing.assert_array_equal(two.bias[2:4], 0)  # from [½, ½]


@pytest.mark.parametrize(
    "scheme", [lstmx.schemes.unit_forget_bias, lstmx.schemes.identity, lstmx.schemes.orthogonal]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, "1"])
def test_numbers_of_schemes_are_finite(scheme, value):
    with pytest.raises(ValueError, match="expected a finite number"):
        scheme(value)


def test_another_framework_is_refused_with_the_list():
    with pytest.raises(
        ValueError, match="framework is 'mxnet'; expected one of 'pytorch', 'keras', 'flax', 'haiku'"
    ):
        lstmx.schemes.defaults_of("mxnet")


@pytest.mark.parametrize("scheme", ["pytorch", [lstmx.schemes.chrono(9), 3], None])
def test_what_is_no_scheme_is_refused(scheme):
    with pytest.raises(
        TypeError, match=r"scheme holds .*; expected schemes such as lstmx\.schemes\.chrono\(1000\)"
    ):
        lstmx.LSTM(2, 3).init(0, scheme=scheme)


def test_what_a_scheme_returns_is_checked():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"params\.bias has shape \(2,\)"):
        lstmx.LSTM(2, 3).init(rng, scheme=lambda cell, params, draws: params._replace(bias=np.zeros(2, "float32")))
    with pytest.raises(TypeError, match="params is a NoneType"):
        lstmx.LSTM(2, 3).init(rng, scheme=lambda cell, params, draws: None)
    with pytest.raises(TypeError, match="expected float32 or float64 throughout"):
        lstmx.LSTM(2, 3).init(rng, scheme=lambda cell, params, draws: params._replace(bias=np.zeros(12)))
