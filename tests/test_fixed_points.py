"""`fixed_points` against points known in closed form, and `critical_gain`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, draw_params, draw_state, is_in, lcg, plain_step, random_history, to

import lstmx

STABLE, SADDLE = 0.7343910871, 2.0522541956  # leading eigenvalues of the latch
LATCH = 1.8347952017722
FAR = ((2.0, 6.0, 1.0, 0.5), (0.2, 1.5, 0.7, 0.4))


def search(library, cell, params, x, candidates, **options):
    """`fixed_points` in the named library; optax needs JAX's standard promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return lstmx.fixed_points(cell, *to(library, (params, x, candidates)), **options)


def cloud(cell, count=40, seed=0):
    return draw_state(cell, np.random.default_rng(seed), (count,))


def latches(units):
    """Units that do not see each other, each with two stable states and a saddle between: V44."""
    kernel = np.zeros((units, 4 * units))
    kernel[:, 2 * units : 3 * units] = 3 * np.eye(units)
    bias = np.repeat([0.0, 1.0, 0.0, 2.0], units)
    return lstmx.LSTM(1, units), lstmx.LSTMParams(np.zeros((1, 4 * units)), kernel, bias)


def near(cells, cell):
    """States of latches with these cell states [N, H]."""
    cells = np.asarray(cells, float).reshape(-1, cell.hidden_size)
    return lstmx.LSTMState(np.tanh(cells) / (1 + math.exp(-2)), cells)


def one_tanh_unit(weight, bias=0.0):
    params = lstmx.SimpleRNNParams(np.zeros((1, 1)), np.array([[weight]]), np.array([bias]))
    return lstmx.SimpleRNN(1, 1), params


def joint(state):
    return np.concatenate([np.asarray(x) for x in state], axis=-1)


def ordered(state):
    """The joint states in an order that does not depend on how they were found."""
    rows = joint(state)
    return rows[np.lexsort(rows.round(5).T)]


@functools.cache
def latch(library):
    cell, params = latches(1)
    return search(library, cell, params, None, cloud(cell))


@functools.cache
def one_of_two(library):
    cell, params = one_tanh_unit(2.0)
    return search(library, cell, params, None, cloud(cell))


# ---------------------------------------------------------------------------------------------- published values


@pytest.mark.sample(1)
def test_one_tanh_unit_has_its_three_points(library):
    """V44: h* = tanh 2 h*."""
    found = one_of_two(library)
    h = 0.9575040240772688
    np.testing.assert_allclose(np.sort(found.points.hidden[:, 0]), [-h, 0, h], rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.log(found.eigenvalues[:2, 0].real), -1.793528506542, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.eigenvalues[2], 2.0, rtol=1e-12)
    assert found.census == {0: 2, 1: 1}
    assert found.index_sum == 1
    np.testing.assert_array_equal(found.stable, [True, True, False])


@pytest.mark.sample(1)
def test_the_latch_has_its_three_points(library):
    """V44: b_f = 1, b_o = 2, U_g = 3."""
    found = latch(library)
    np.testing.assert_allclose(np.sort(found.points.cell[:, 0]), [-LATCH, 0, LATCH], rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.eigenvalues[:, 0], [STABLE, STABLE, SADDLE], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.eigenvalues[:, 1], 0, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.timescales[:, 0], -1 / np.log([STABLE, STABLE, SADDLE]), rtol=1e-9)
    assert found.census == {0: 2, 1: 1}
    assert found.index_sum == 1
    assert found.converged == found.candidates == 40
    assert found.found.sum() == found.starts
    assert len(found.slow) == len(found.outliers) == 0
    assert is_in(library, (found.points, found.q, found.x))
    assert isinstance(found.eigenvalues, np.ndarray)
    assert "3 fixed points and 0 slow points from 40 candidates" in str(found)
    assert "index sum 1, as a complete set" in found.summary()
    assert repr(found) == "FixedPoints(3 fixed, 0 slow, index sum 1)"
    assert repr(found.fixed) == "Points(3 states)"


@pytest.mark.sample(1)
@pytest.mark.parametrize("biases", FAR, ids=["far", "near"])
def test_without_recurrent_weights_the_point_is_a_quotient(library, biases):
    """c* = i g / (1 − f), which lies at 271 for a forget bias of 6; V44 for the other."""
    i, f, o = (1 / (1 + math.exp(-biases[k])) for k in (0, 1, 3))
    cell, params = latches(1)
    params = params._replace(recurrent_kernel=np.zeros((1, 4)), bias=np.array(biases))
    found = search(library, cell, params, None, cloud(cell))
    c = i * math.tanh(biases[2]) / (1 - f)
    np.testing.assert_allclose(found.points.cell, [[c]], rtol=1e-10)
    np.testing.assert_allclose(found.points.hidden, [[o * math.tanh(c)]], rtol=1e-10)
    np.testing.assert_allclose(found.eigenvalues, [[f, 0]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.timescales, [[-1 / math.log(f), 0]], rtol=1e-9)
    assert found.index_sum == 1
    assert c > 250 or (round(c, 10), round(f, 10)) == (1.8215759714, 0.8175744762)


def test_the_zero_state_has_the_eigenvalues_of_the_candidate_kernel():
    """V28: σ(b_f) + σ(b_i) σ(b_o) eig(U_g), and zeros."""
    kernels = [lcg((6, 6), 7), lcg((6, 6), 8), lcg((6, 6), 2, 0.8), lcg((6, 6), 9)]
    kernel, bias = np.concatenate(kernels).T.copy(), np.repeat([0.3, 1.0, 0.0, -0.2], 6)
    cell, params = lstmx.LSTM(1, 6), lstmx.LSTMParams(np.zeros((1, 24)), kernel, bias)
    zero = lstmx.LSTMState(np.zeros((1, 6)), np.zeros((1, 6)))
    found = search("numpy", cell, params, None, zero)
    i, f, o = (1 / (1 + np.exp(-b)) for b in (0.3, 1.0, -0.2))
    expected = f + i * o * np.linalg.eigvals(kernels[2])
    assert_close(np.sort_complex(found.eigenvalues[0, :6].round(10)), np.sort_complex(expected.round(10)), 1e-9)
    np.testing.assert_allclose(found.eigenvalues[0, 6:], 0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.abs(found.eigenvalues[0, 0]), 0.9031628168494, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------ complete and incomplete sets


@pytest.mark.slow
@pytest.mark.parametrize("units", [2, 3])
def test_independent_latches_have_all_their_combinations(units):
    cell, params = latches(units)
    found = search("numpy", cell, params, None, cloud(cell, 200))
    assert len(found.fixed) == 3**units
    assert found.census == {k: math.comb(units, k) * 2 ** (units - k) for k in range(units + 1)}
    assert found.index_sum == 1
    assert sorted(found.fixed.unstable_modes) == list(found.fixed.unstable_modes)
    expected = np.stack(np.meshgrid(*[[-LATCH, 0, LATCH]] * units), axis=-1).reshape(-1, units)
    np.testing.assert_allclose(ordered(found.points), ordered(near(expected, cell)), rtol=0, atol=1e-10)


@pytest.mark.sample(1)
def test_a_set_that_lacks_a_point_says_so(library):
    """Candidates beside some of the latch's points find those and no other; the advice finds the rest."""
    cell, params = latches(1)
    for start, index in (([1.8, -1.8, 1.9], 2), ([1.8, 1e-9], 0), ([0.0, 1e-9], -1)):
        found = search(library, cell, params, None, near(start, cell), rounds=0)
        assert found.index_sum == index
        assert found.fresh == len(found.fixed)
        assert f"WARNING: index sum {index}, but a complete set of fixed points has 1" in found.summary()
        assert "try rounds=20" in found.summary()
    found = search(library, cell, params, None, near(start, cell), rounds=20)
    assert found.census == {0: 2, 1: 1}
    assert "WARNING" not in str(found)


@pytest.mark.slow
def test_rounds_add_points_and_lose_none():
    cell, params = latches(3)
    before, after = (search("numpy", cell, params, None, cloud(cell, 12), rounds=rounds) for rounds in (0, 3))
    rows = joint(after.points)
    assert all((np.abs(rows - row).max(axis=1) < 1e-6).any() for row in joint(before.points))
    assert len(after.fixed) > len(before.fixed)
    assert (after.converged, after.rounds) == (before.converged, 3)
    assert after.starts > before.starts == 12


# ------------------------------------------------------------- networks that have 3^k points, from a recorded pass


def coupled(params, blocks, draws, coupling=0.02):
    """Latches renamed, with signs, and coupled weakly: their points move a little, and none comes or goes."""
    units = params.bias.shape[0] // blocks
    turn = np.eye(units)[draws.permutation(units)] * draws.choice([-1, 1], units)[:, None]
    kernels = np.split(params.recurrent_kernel, blocks, axis=1)
    noise = coupling * draws.normal(size=(units, units))
    turned = [turn @ (kernel + (noise if kernel.any() else 0)) @ turn.T for kernel in kernels]
    biases = [abs(turn) @ bias for bias in np.split(params.bias, blocks)]
    driven = draws.normal(size=(2, blocks * units))
    return type(params)(driven, np.concatenate(turned, axis=1), np.concatenate(biases))


def many_latches(kind, units, seed):
    """A network of weakly coupled latches; of an LSTM those with c* at 10, 100 and 1,000."""
    draws = np.random.default_rng(seed)
    if kind == "rnn":
        params = lstmx.SimpleRNNParams(np.zeros((2, units)), 2 * np.eye(units), np.zeros(units))
        return lstmx.SimpleRNN(2, units), coupled(params, 1, draws)
    far = np.resize([10.0, 100.0, 1000.0], units)
    forget = 1 - 0.5 * math.tanh(3 / (1 + math.exp(-2))) / far
    params = latches(units)[1]._replace(input_kernel=np.zeros((2, 4 * units)))
    bias = np.concatenate([np.zeros(units), np.log(forget / (1 - forget)), np.zeros(units), np.full(units, 2.0)])
    return lstmx.LSTM(2, units), coupled(params._replace(bias=bias), 4, draws)


def from_a_pass(library, kind, units, dtype, seed=0, **options):
    cell, params = many_latches(kind, units, seed)
    xs = np.random.default_rng(seed + 100).normal(size=(200, 2))
    params, xs = to(library, jax.tree.map(lambda x: x.astype(dtype), (params, xs)))
    history = lstmx.record(cell, params, xs)
    return search(library, cell, params, None, history, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "kind", "units", "dtype"),
    [
        ("numpy", "rnn", 4, "float32"),
        ("numpy", "lstm", 2, "float32"),
        ("numpy", "lstm", 4, "float64"),
        ("jax", "rnn", 3, "float64"),
        ("jax", "lstm", 3, "float32"),
    ],
)
def test_a_pass_leads_to_all_combinations_of_latches(library, kind, units, dtype):
    found = from_a_pass(library, kind, units, dtype)
    assert found.census == {k: math.comb(units, k) * 2 ** (units - k) for k in range(units + 1)}
    assert found.index_sum == 1
    assert found.found.min() >= 2
    assert found.unseen == 0
    assert "WARNING" not in str(found)
    if kind == "lstm":
        far = np.abs(np.asarray(found.points.cell)).max(axis=0)
        np.testing.assert_allclose(np.sort(far), np.sort(np.resize([10, 100, 1000], units)), rtol=0.05)


@pytest.mark.slow
def test_wide_candidates_find_all_nine():
    cell, params = latches(2)
    wide = cell.state_type(*(8 * field for field in cloud(cell, 12)))
    found = search("jax", cell, params, None, wide)
    assert found.census == {0: 4, 1: 4, 2: 1}
    assert "WARNING" not in str(found)


@pytest.mark.sample(1)
def test_candidates_have_any_axes_in_front(library):
    cell, params = latches(1)
    start = cloud(cell, 12)
    flat = search(library, cell, params, None, start, rounds=0)
    for lead in ((3, 4), (2, 3, 2)):
        found = search(
            library, cell, params, None, cell.state_type(*(x.reshape(*lead, 1) for x in start)), rounds=0
        )
        np.testing.assert_array_equal(found.points.cell, flat.points.cell)
    one = search(library, cell, params, None, cell.state_type(*(x[0] for x in start)), rounds=0)
    assert one.candidates == 1


# ----------------------------------------------------------------------------------- how far a result is trusted


def test_one_candidate_reads_well():
    cell, params = one_tanh_unit(2.0)
    found = search("numpy", cell, params, None, lstmx.SimpleRNNState(np.array([[0.5]])), rounds=0)
    assert str(found).splitlines()[0] == (
        "1 fixed point and 0 slow points from 1 candidate, of which 1 led to a fixed point"
    )
    assert "\n  found once\n" in str(found)
    with pytest.raises(ValueError, match=r"outlier_distance is 2\.0, .* all at one place; expected None"):
        search("numpy", cell, params, None, lstmx.SimpleRNNState(np.array([[0.5]])), outlier_distance=2.0)


def test_points_found_once_and_twice_say_how_many_are_not_yet_seen():
    """Chao: f₁ (f₁ − 1) / 2 (f₂ + 1)."""
    cell, params = latches(1)
    found = search("numpy", cell, params, None, near([1.8, -1.8, 0.0], cell), rounds=0)
    assert found.found.tolist() == [1, 1, 1]
    assert found.unseen == 3 * 2 / 2
    assert "each found once" in str(found)
    assert "WARNING: about 3 more points not yet seen" in str(found)
    assert "try rounds=20" in str(found)
    found = search("numpy", cell, params, None, near([1.8, 1.8, -1.8, 0.0], cell), rounds=0)
    assert sorted(found.found) == [1, 1, 2]
    assert found.unseen == 2 / (2 * 2)
    assert "2 of them found once, the others up to 2 times" in str(found)
    found = search("numpy", cell, params, None, near([1.8, -1.8], cell), rounds=0)
    assert found.unseen == 1
    assert "points are missing\n  about 1 more points not yet seen" in str(found)
    assert "about 0" not in str(search("numpy", cell, params, None, near([1.8] * 3, cell), rounds=0))


def test_a_round_that_still_brings_points_asks_for_more():
    found = from_a_pass("numpy", "rnn", 3, "float64", rounds=1)
    assert found.fresh > 0
    if found.index_sum != 1 or found.unseen >= 0.5:
        assert f"the last round still brought {found.fresh}: try rounds=2" in str(found)


# ----------------------------------------------------------------------------------------- roots that have merged


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("start", [[[0.3]], [[0.0]], [[0.3], [-0.2], [0.7]]])
def test_three_points_that_have_merged_are_one(dtype, start):
    """Only 0 solves h = tanh h, to the third order."""
    cell, params = one_tanh_unit(1.0)
    params, state = jax.tree.map(lambda x: x.astype(dtype), (params, lstmx.SimpleRNNState(np.array(start))))
    found = search("numpy", cell, params, None, state)
    assert len(found.fixed) == 1
    assert abs(found.points.hidden[0, 0]) <= np.finfo(dtype).eps ** (1 / 3)
    assert found.fixed.degenerate.all()
    assert found.index_sum is None
    assert "an eigenvalue of 1 to rounding, as where points merge" in str(found)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("dtype", "beyond"), [("float64", 1e-9), ("float64", 1e-3), ("float32", 1e-3)])
def test_three_points_just_apart_are_three(dtype, beyond):
    cell, params = one_tanh_unit(1 + beyond)
    params, state = jax.tree.map(lambda x: x.astype(dtype), (params, lstmx.SimpleRNNState(np.array([[0.3]]))))
    found = search("numpy", cell, params, None, state)
    h = math.sqrt(3 * beyond / (1 + beyond) ** 3)
    error = 40 * np.finfo(dtype).eps / beyond + beyond
    np.testing.assert_allclose(np.sort(found.points.hidden[:, 0]), [-h, 0, h], rtol=0, atol=error * h)
    assert (found.census, found.index_sum) == ({0: 2, 1: 1}, 1)


def test_two_points_that_have_merged_are_one_or_none():
    """tanh(1.5 h + b) touches h at −√⅓ for one b."""
    root = math.sqrt(1 / 3)
    cell, params = one_tanh_unit(1.5, 1.5 * root - math.atanh(root))
    found = search("numpy", cell, params, None, lstmx.SimpleRNNState(np.linspace(-0.9, 0.9, 20)[:, None]))
    touching = found.points.hidden[:, 0] < 0
    assert touching.sum() <= 1
    assert found.fixed.degenerate.tolist() == touching.tolist()
    np.testing.assert_allclose(found.points.hidden[touching], -root, rtol=0, atol=1e-7)


def test_a_line_of_points_is_said():
    """h ← relu(h) stands still wherever h > 0."""
    cell = lstmx.SimpleRNN(1, 1, activation="relu")
    params = one_tanh_unit(1.0)[1]
    found = search("numpy", cell, params, None, lstmx.SimpleRNNState(np.array([[0.5], [1.0], [2.0]])), rounds=1)
    assert (found.points.hidden == 0).all()  # where the slope is 0
    assert found.undetermined > 0
    assert "ended where the state stands still along a line" in str(found)


def test_candidates_of_one_point_are_one_point():
    cell, params = latches(1)
    found = search("numpy", cell, params, None, near(np.linspace(1.7, 1.9, 50), cell))
    assert (len(found.fixed), found.converged, found.candidates) == (1, 50, 50)


def test_a_cycle_of_one_unit_leaves_the_zero_state_alone():
    """h -> tanh(−2 h) has one fixed point, an unstable one with index 1."""
    cell, params = one_tanh_unit(-2.0)
    found = search("numpy", cell, params, None, cloud(cell, 10))
    assert (found.census, found.index_sum) == ({1: 1}, 1)
    np.testing.assert_allclose(found.eigenvalues, [[-2.0]], rtol=1e-12)
    np.testing.assert_allclose(found.frequencies, [[0.5]], rtol=1e-15)


@pytest.mark.parametrize(
    ("dtype", "beyond", "index"),
    [
        ("float64", 1e-13, None),
        ("float64", 5e-7, 1),
        ("float32", 1e-6, None),
        ("float32", 1e-3, 1),
    ],
)
def test_a_point_about_to_split_has_no_index(dtype, beyond, index):
    cell, params = one_tanh_unit(1 - beyond)
    params, zero = jax.tree.map(lambda x: x.astype(dtype), (params, lstmx.SimpleRNNState(np.zeros((3, 1)))))
    found = search("numpy", cell, params, None, zero)
    assert found.index_sum == index
    assert ("index sum undefined: a fixed point has an eigenvalue of 1" in found.summary()) == (index is None)


@pytest.mark.slow
def test_points_far_from_the_candidates_are_set_apart_and_counted():
    cell, params = latches(1)
    candidates = near([*np.linspace(-0.01, 0.01, 21), -LATCH, LATCH], cell)
    together, apart = (
        search("numpy", cell, params, None, candidates, outlier_distance=distance) for distance in (None, 2.0)
    )
    assert (len(together.fixed), len(together.outliers)) == (3, 0)
    assert (len(apart.fixed), len(apart.outliers)) == (1, 2)
    np.testing.assert_allclose(np.sort(apart.outliers.states.cell[:, 0]), [-LATCH, LATCH], rtol=1e-10)
    assert apart.outliers.stable.all()
    assert apart.index_sum == together.index_sum == 1
    assert "2 more fixed points lie farther out" in str(apart)


# --------------------------------------------------------------------------------------------------- slow points


@pytest.mark.sample(1)
@pytest.mark.parametrize("beyond", [1e-3, 1e-4])
def test_where_two_points_have_just_merged_there_is_a_slow_one(library, beyond):
    """tanh(1.5 h + b) touches h at −√⅓ for one b; past it the least |F − h| is (b − b_c) / 1.5 there."""
    root = math.sqrt(1 / 3)  # 1.5 (1 − tanh²) = 1 where tanh = −√⅓
    bias = 1.5 * root - math.atanh(root)
    cell, params = one_tanh_unit(1.5, bias + beyond)
    start = lstmx.SimpleRNNState(np.linspace(-0.9, 0.9, 40)[:, None])
    found = search(library, cell, params, None, start)
    assert (len(found.fixed), len(found.slow), found.index_sum) == (1, 1, 1)
    assert found.points.hidden[0, 0] > 0.9
    np.testing.assert_allclose(found.slow.states.hidden, [[-root - beyond / 1.5]], rtol=0, atol=beyond)
    np.testing.assert_allclose(found.slow.q, [(beyond / 1.5) ** 2 / 2], rtol=0.01)
    np.testing.assert_allclose(found.slow.eigenvalues, [[1.0]], rtol=0, atol=0.01)
    assert "1 slow point" in str(found)


def test_no_slow_point_is_left_where_they_have_merged_long_ago():
    root = math.sqrt(1 / 3)
    cell, params = one_tanh_unit(1.5, 1.5 * root - math.atanh(root) + 0.01)
    found = search("numpy", cell, params, None, cloud(cell))
    assert (len(found.fixed), len(found.slow)) == (1, 0)


# ---------------------------------------------------------------------------------------------- any network at all


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_returned_as_fixed_stands_still(kind, seed):
    draws = np.random.default_rng(seed)
    cell = kind(2, int(draws.integers(1, 5)))
    params, x = draw_params(cell, draws, scale=1.0), draws.normal(size=2)
    found = search("numpy", cell, params, x, draw_state(cell, draws, (12,)))
    assert len(found.fixed)
    after = joint(plain_step(cell, params, found.points, x)[0])
    before = joint(found.points)
    moved = np.abs(after - before).max(axis=1)
    assert (moved <= 1e-11 * (1 + np.abs(before).max(axis=1))).all()
    np.testing.assert_allclose(found.q, 0.5 * ((after - before) ** 2).sum(axis=1), rtol=1e-6, atol=1e-28)
    slow = joint(found.slow.states)
    moved = np.abs(joint(plain_step(cell, params, found.slow.states, x)[0]) - slow).max(axis=1, initial=0)
    assert (moved <= 1.001e-3 * (1 + np.abs(slow).max(axis=1, initial=0))).all()


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.SimpleRNN])
@pytest.mark.parametrize("seed", range(4))
def test_fixed_points_lie_where_the_cell_can_go(kind, seed):
    """|h| < 1 for every state that a step leaves behind."""
    draws = np.random.default_rng(seed)
    cell = kind(2, 4)
    params = draw_params(cell, draws, scale=1.2)
    found = search("numpy", cell, params, draws.normal(size=2), draw_state(cell, draws, (12,)))
    assert len(found.fixed)
    assert np.abs(found.points.hidden).max() < 1


@functools.cache
def drawn_network(kind):
    """A random network of two units, weak enough for few points, with its points in both libraries."""
    draws = np.random.default_rng(8)
    cell = kind(2, 2)
    params, x = draw_params(cell, draws, scale=0.6), draws.normal(size=2)
    candidates = cell.state_type(*(np.tanh(field) for field in draw_state(cell, draws, (10,))))
    return cell, params, x, [search(library, cell, params, x, candidates) for library in ("numpy", "jax")]


@pytest.mark.slow
def test_numpy_and_jax_find_the_same_points(kind):
    numpy, jax = drawn_network(kind)[3]
    assert len(numpy.fixed) >= 1
    np.testing.assert_allclose(ordered(jax.points), ordered(numpy.points), rtol=0, atol=1e-9)
    assert jax.census == numpy.census
    assert jax.index_sum == numpy.index_sum == 1


@pytest.mark.slow
def test_eigenvalues_are_those_of_the_jacobian_at_the_point(kind):
    cell, params, x, (found, _) = drawn_network(kind)
    matrices = lstmx.jacobians(lstmx.record(cell, params, np.tile(x, (1, len(found.fixed), 1)), found.points))[0]
    for made, matrix in zip(found.eigenvalues, matrices, strict=True):
        np.testing.assert_allclose(np.poly(made), np.poly(matrix), rtol=0, atol=1e-12)
        assert (np.diff(np.abs(made)) <= 1e-12).all()
    assert found.stable.tolist() == [bool((np.abs(values) < 1).all()) for values in found.eigenvalues]


@pytest.mark.parametrize("scale", [0.95, 1.05])
@pytest.mark.parametrize("angle", [0.3, 2.0])
def test_a_rotation_has_its_angle_and_its_decay(scale, angle):
    rotation = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    params = lstmx.SimpleRNNParams(np.zeros((1, 2)), rotation, np.zeros(2))
    zero = lstmx.SimpleRNNState(np.zeros((2, 2)))
    found = search("numpy", lstmx.SimpleRNN(1, 2), params, None, zero)
    np.testing.assert_allclose(found.frequencies, np.full((1, 2), angle / (2 * np.pi)), rtol=1e-12)
    np.testing.assert_allclose(found.timescales, np.full((1, 2), -1 / np.log(scale)), rtol=1e-12)
    assert found.census == {0 if scale < 1 else 2: 1}
    assert found.index_sum == 1


def test_the_input_shifts_the_points(library):
    """An input of b through a kernel of 1 is a bias of b, and None is zeros."""
    cell, params = one_tanh_unit(2.0)
    fed = params._replace(input_kernel=np.ones((1, 1)))
    found = search(library, cell, fed, np.array([0.1]), cloud(cell))
    expected = search(library, cell, params._replace(bias=np.array([0.1])), None, cloud(cell))
    assert found.census == {0: 2, 1: 1}
    np.testing.assert_allclose(ordered(found.points), ordered(expected.points), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.x, [0.1])
    np.testing.assert_array_equal(expected.x, [0.0])


def test_float32_finds_the_points_to_its_own_tolerance():
    cell, params = latches(1)
    params, start = jax.tree.map(lambda x: x.astype("float32"), (params, cloud(cell)))
    found = search("numpy", cell, params, None, start)
    assert found.points.cell.dtype == "float32"
    assert found.eigenvalues.dtype == np.complex128
    np.testing.assert_allclose(np.sort(found.points.cell[:, 0]), [-LATCH, 0, LATCH], rtol=0, atol=1e-4)
    assert found.index_sum == 1


# --------------------------------------------------------------------------------------------------- Newton's step


@pytest.mark.sample(3)
def test_newtons_step_solves_the_whole_system(kind, library):
    history = random_history(kind, length=2, batch=(3,), hidden=4, seed=3)
    history = to(library, history)
    residual = to(library, np.random.default_rng(1).normal(size=(2, 3, history.cell.state_size)))
    compiled = jax.jit if library == "jax" else (lambda function: function)
    made = compiled(lambda history, residual: lstmx.linearise(history).newton_step(residual))(history, residual)
    assert is_in(library, made)
    matrices = np.eye(history.cell.state_size) - np.asarray(lstmx.jacobians(history))
    assert_close((matrices @ np.asarray(made)[..., None])[..., 0], residual, 1e-11)


# ---------------------------------------------------------------------------------------------------------- errors


def states(*shapes, dtype="float64"):
    return lstmx.LSTMState(*(np.zeros(shape, dtype) for shape in shapes))


@pytest.mark.parametrize(
    ("candidates", "error", "text"),
    [
        (states((), ()), ValueError, r"candidates.* expected"),
        (states((0, 1), (0, 1)), ValueError, r"axes \(0,\) of candidates hold no sequence"),
        (states((2, 1), (3, 1)), ValueError, r"candidates.cell has shape \(3, 1\)"),
        (states((2, 1), (2, 1), dtype="float32"), TypeError, "candidates.hidden is float32"),
        (np.zeros((2, 2)), TypeError, "candidates is a ndarray; .* expects LSTMState"),
        (np, TypeError, "candidates is a module; .* expects LSTMState"),
        (states((2, 1), (2, 1))._replace(cell=np.array([[0], [np.nan]])), ValueError, "candidates.cell is nan"),
    ],
)
def test_candidates_that_are_none_are_refused(candidates, error, text):
    with pytest.raises(error, match=text):
        lstmx.fixed_points(*latches(1), None, candidates)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"tolerance": -1.0}, ValueError, r"tolerance is -1\.0; expected a positive number"),
        ({"slow": 0}, ValueError, "slow is 0; expected a positive number"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate is nan; expected a positive number"),
        ({"outlier_distance": -2}, ValueError, "outlier_distance is -2; expected a positive number"),
        (
            {"tolerance": 1e-30},
            ValueError,
            r"tolerance is 1e-30; rounding leaves about 2e-15 .* in float64: expected",
        ),
        ({"tolerance": "s"}, TypeError, "tolerance is 's'; expected a positive number"),
        ({"tolerance": True}, TypeError, "tolerance is True; expected a positive number"),
        ({"rounds": -1}, ValueError, "rounds is -1; expected an integer of at least 0"),
        ({"seed": 1.5}, TypeError, "seed is 1.5; expected an integer"),
        ({"iterations": 0}, ValueError, "iterations is 0; expected an integer of at least 1"),
        ({"iterations": 1.5}, TypeError, r"iterations is 1\.5; expected an integer of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        lstmx.fixed_points(*latches(1), None, states((2, 1), (2, 1)), **options)


def test_inputs_and_parameters_that_are_none_are_refused():
    (cell, params), start = latches(1), states((2, 1), (2, 1))
    with pytest.raises(ValueError, match=r"x has shape \(2,\); expected \[input_size\] = \(1,\)"):
        lstmx.fixed_points(cell, params, np.zeros(2), start)
    with pytest.raises(ValueError, match="x is inf"):
        lstmx.fixed_points(cell, params, np.array([np.inf]), start)
    with pytest.raises(ValueError, match=r"params\.bias holds NaN or infinity"):
        lstmx.fixed_points(cell, params._replace(bias=np.full(4, np.nan)), None, start)


def test_within_a_transformation_it_says_that_it_cannot_run():
    cell, params = latches(1)
    with pytest.raises(TypeError, match="cannot run inside a JAX transformation"):
        jax.jit(lambda x: lstmx.fixed_points(cell, params, x, states((2, 1), (2, 1))).q)(jnp.zeros(1))


# --------------------------------------------------------------------------------------------------- critical gain


@pytest.mark.parametrize(("bias", "gain"), [(0, 2), (1, 1.0758), (2, 0.4768), (3, 0.1897), (5, 0.0268)])
def test_an_lstm_has_the_known_critical_gains(bias, gain):
    np.testing.assert_allclose(lstmx.critical_gain(lstmx.LSTM(3, 8), forget_bias=bias), gain, rtol=0, atol=5e-5)
    assert lstmx.critical_gain(lstmx.LSTM(3, 8, forget_bias=bias)) == lstmx.critical_gain(lstmx.LSTM(1, 2), bias)


def test_other_cells_have_theirs():
    assert lstmx.critical_gain(lstmx.GRU(3, 8)) == 2
    assert lstmx.critical_gain(lstmx.SimpleRNN(3, 8)) == 1


def test_biases_of_gates_move_the_critical_gain():
    sigma = {b: 1 / (1 + math.exp(-b)) for b in (-1.0, 0.5, 2.0)}
    made = lstmx.critical_gain(lstmx.LSTM(1, 2), 2.0, input_gate=-1.0, output_gate=0.5)
    np.testing.assert_allclose(made, (1 - sigma[2.0]) / (sigma[-1.0] * sigma[0.5]), rtol=1e-14)
    made = lstmx.critical_gain(lstmx.GRU(1, 2), reset_gate=0.5, update_gate=2.0)
    np.testing.assert_allclose(made, 1 / sigma[0.5], rtol=1e-14)


@pytest.mark.parametrize(
    ("biases", "sign"), [({}, -1), ({}, 1), ({"output_gate": 1.5}, -1), ({"output_gate": 1.5}, 1)]
)
def test_the_zero_state_of_many_units_loses_its_stability_at_the_critical_gain(kind, biases, sign):
    """Within 10 % for 200 units."""
    if biases and kind is not lstmx.LSTM:
        biases = {"reset_gate": -1.0} if kind is lstmx.GRU else {}
    cell = kind(1, 200)
    params = jax.tree.map(np.zeros_like, cell.init(np.random.default_rng(0), "float64"))
    shape = params.recurrent_kernel.shape
    gain = (1 + 0.1 * sign) * lstmx.critical_gain(cell, **biases)
    kernel = gain * np.random.default_rng(1).standard_normal(shape) / math.sqrt(200)
    given = {"forget_gate": 1.0} if kind is lstmx.LSTM else {}
    bias = np.zeros_like(params.bias)
    for name, value in {**given, **biases}.items():
        start = cell.gate_blocks[name] * 200
        bias[start : start + 200] = value
    history = lstmx.record(cell, params._replace(recurrent_kernel=kernel, bias=bias), np.zeros((1, 1)))
    radius = np.abs(np.linalg.eigvals(lstmx.jacobians(history)[0])).max()
    assert (radius - 1) * sign > 0


def test_gates_that_a_cell_has_not_are_refused():
    with pytest.raises(ValueError, match=r"forget_bias is 1\.0; a GRU has no forget gate of its own"):
        lstmx.critical_gain(lstmx.GRU(1, 2), forget_bias=1.0)
    with pytest.raises(ValueError, match="input_gate: a GRU has the gates reset_gate, update_gate"):
        lstmx.critical_gain(lstmx.GRU(1, 2), input_gate=1.0)
    with pytest.raises(ValueError, match="bar, foo: a SimpleRNN has the gates none"):
        lstmx.critical_gain(lstmx.SimpleRNN(1, 2), foo=1.0, bar=2.0)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("scale", "seed"), [(0.3, 0), (0.7, 0), (1.5, 2)])
def test_a_gate_that_rounds_to_one_makes_no_fixed_point(scale, seed):
    """Far out, where an update gate is 1 to the bit, every state stands still; at a fixed point h = n."""
    draws, cell = np.random.default_rng(seed), lstmx.GRU(2, 4)
    params, x = draw_params(cell, draws, scale=scale), draws.normal(size=2)
    points = lstmx.fixed_points(cell, params, x, draw_state(cell, draws, (60,)))
    assert len(points.fixed) == 1
    assert np.abs(points.points.hidden).max() < 1
    assert points.index_sum == 1


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_a_recorded_pass_gives_the_candidates(library):
    cell = lstmx.LSTM(3, 4)
    params = cell.init(np.random.default_rng(0), "float64")
    xs, mask = np.random.default_rng(1).normal(size=(9, 2, 3)), np.ones((9, 2), bool)
    mask[5:, 1] = False
    if library == "jax":
        params, xs, mask = jax.tree.map(jax.numpy.asarray, (params, xs, mask))
    history = lstmx.record(cell, params, xs, mask=mask)
    states = lstmx.LSTMState(*(np.asarray(field)[np.asarray(mask)] for field in history.states))
    states = jax.tree.map(jax.numpy.asarray, states) if library == "jax" else states
    with jax.numpy_dtype_promotion("standard"):  # optax adds a Python float to an integer count
        found, same = (lstmx.fixed_points(cell, params, None, one) for one in (history, states))
    assert str(found) == str(same)
    assert "from 14 candidates" in str(found)


@pytest.mark.slow
def test_a_pass_through_layers_gives_the_candidates():
    stack = lstmx.Stack([lstmx.GRU(3, 3), lstmx.GRU(3, 2)])
    params = stack.init(np.random.default_rng(0), "float64")
    history = lstmx.record(stack, params, np.random.default_rng(1).normal(size=(6, 3)))
    assert "from 6 candidates" in str(lstmx.fixed_points(stack, params, None, history))
