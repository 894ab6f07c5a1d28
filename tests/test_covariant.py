"""Covariant Lyapunov vectors against closed forms, a plain loop, published numbers, and time backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import to

import lstmx
import lstmx.plot

BOTH = ["numpy", pytest.param("jax", marks=pytest.mark.slow)]  # what compiles is slow


def carried(found, matrices):
    """Angles between J v and the next vector, and the ln of the factors, of vectors kept at every step."""
    v = np.asarray(found.vectors, "float64")
    pushed = np.einsum("t...ij,t...kj->t...ki", np.asarray(matrices)[found.steps[1:]], v[:-1])
    factors = np.maximum(np.linalg.norm(pushed, axis=-1), 1e-300)
    return np.linalg.norm(pushed / factors[..., None] - v[1:], axis=-1), np.log(factors)


def same_lines(one, other, tolerance):
    """Unit vectors along the same lines."""
    one, other = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (one, other))
    sign = np.sign((one * other).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(one, sign * other, atol=tolerance)


def draws(seed=0):
    return np.random.default_rng(seed)


@functools.cache
def driven(library="numpy", kind=lstmx.LSTM, length=600, hidden=6, batch=()):
    cell = kind(3, hidden)
    given = to(library, (cell.init(draws(), "float64"), draws(1).normal(size=(length, *batch, 3))))
    return lstmx.record(cell, *given)


def plain_loop(matrices, count, transient, seed=0):
    """Vectors and growth at the steps that count, one matrix at a time."""
    size = matrices.shape[-1]
    frame = np.linalg.qr(draws(seed).standard_normal((size, size)))[0][:, :count]
    frames, triangles = [], []
    for matrix in matrices:
        frame, r = np.linalg.qr(matrix @ frame)
        frames.append(frame)
        triangles.append(r)
    c, vectors, growth = np.eye(count), [], []
    for frame, r in zip(frames[::-1], triangles[::-1], strict=True):
        vectors.append((frame @ c).T)
        c = np.stack([np.linalg.solve(r, column) for column in c.T], axis=1)
        growth.append(-np.log(np.linalg.norm(c, axis=0)))
        c /= np.linalg.norm(c, axis=0)
    kept = slice(transient, len(matrices) - transient)
    return np.stack(vectors[::-1])[kept], np.stack(growth[::-1])[kept]


# ------------------------------------------------------------------------------------------------ what they are


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_each_vector_is_carried_into_the_next(library):
    history = driven(library)
    found = lstmx.covariant_vectors(history, "all")
    apart, logs = carried(found, lstmx.linearise(history).matrices())
    assert found.every == 1
    assert apart.max() < 1e-8
    np.testing.assert_allclose(found.growth[1:], logs, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("library", BOTH)
@pytest.mark.parametrize("count", [2, "all"])
def test_a_plain_loop_gives_the_same(library, count):
    """Over several stretches, with frames pushed as tangents (few) and by matrices (all)."""
    matrices = np.asarray(lstmx.linearise(driven()).matrices())
    found = lstmx.covariant_vectors(driven(library), count, transient=70)
    number = 12 if count == "all" else count
    vectors, growth = plain_loop(matrices, number, 70)
    # A frame's vector beyond convergence amplifies rounding as its exponents are close.
    same_lines(found.vectors, vectors, 1e-6)
    np.testing.assert_allclose(found.growth, growth, atol=1e-6)


@pytest.mark.slow
def test_growth_is_that_of_the_exponents():
    history = driven(length=2000)
    found, spectrum = lstmx.covariant_vectors(history, "all"), lstmx.lyapunov_spectrum(history, "all")
    errors = np.hypot(found.standard_errors, spectrum.standard_errors)
    assert (np.abs(found.exponents - spectrum.exponents) < 3 * errors).all()
    assert (np.diff(found.exponents) < 0.02).all()
    assert found.agreement < 10 / 1600


def test_vectors_of_a_constant_matrix_are_its_eigenvectors():
    basis = draws().normal(size=(4, 4))
    values = np.array([1.5, -1.1, 0.7, 0.2])
    matrix = basis @ np.diag(values) @ np.linalg.inv(basis)
    found = lstmx.covariant_vectors(np.broadcast_to(matrix, (400, 4, 4)), transient=150)
    same_lines(found.vectors, np.broadcast_to(basis.T, (100, 4, 4)), 1e-10)
    np.testing.assert_allclose(found.exponents, np.log(np.abs(values)), atol=1e-10)
    assert found.settled.max() < 1e-10
    expected = basis / np.linalg.norm(basis, axis=0)
    np.testing.assert_allclose(found.angle(0, 2), np.arccos(abs(expected[:, 0] @ expected[:, 2])), atol=1e-8)
    # of spans: the greatest cosine between them
    one, other = np.linalg.qr(basis[:, :2])[0], np.linalg.qr(basis[:, 2:])[0]
    cosine = np.linalg.svd(one.T @ other)[1][0]
    np.testing.assert_allclose(found.angles(2), np.arccos(cosine), atol=1e-8)
    assert found.hyperbolicity().split == 2
    assert str(found.hyperbolicity()).startswith("angle between the 2 vectors that grow and the others: least 0.")


@pytest.mark.parametrize("library", BOTH)
def test_a_splitting_that_is_known(library):
    """J_t = A_t D_t A_{t-1}⁻¹ carries the columns of A into each other, and stretches them by D."""
    length, size = 500, 4
    bases = draws(2).normal(size=(length + 1, size, size)) + 3 * np.eye(size)
    bases /= np.linalg.norm(bases, axis=-2, keepdims=True)
    factors = np.exp(draws(3).normal([0.4, 0.0, -0.5, -1.0], 0.3, (length, size)))
    matrices = bases[1:] @ (factors[..., None] * np.linalg.inv(bases[:-1]))
    found = lstmx.covariant_vectors(to(library, matrices), transient=120)
    same_lines(found.vectors, np.swapaxes(bases[1:], -1, -2)[120:380], 1e-9)
    np.testing.assert_allclose(found.growth, np.log(factors[120:380]), atol=1e-9)
    np.testing.assert_allclose(found.exponents, np.log(factors[120:380]).mean(axis=0), atol=1e-9)


def test_time_backward_has_the_same_vectors():
    matrices = np.asarray(lstmx.linearise(driven(kind=lstmx.GRU, hidden=4)).matrices())
    there = lstmx.covariant_vectors(matrices, "all", transient=150)
    back = lstmx.covariant_vectors(np.linalg.inv(matrices[::-1]), "all", transient=150)
    # The state after step t backward is that before step T − 1 − t.
    same_lines(back.vectors[::-1][1:, ::-1], there.vectors[:-1], 1e-4)
    np.testing.assert_allclose(back.growth[::-1][:, ::-1], -there.growth, atol=1e-3)


def henon(length, a=1.4, b=0.3):
    """Jacobians of x ← 1 − a x² + y, y ← b x along an orbit on the attractor."""
    x, y, xs = 0.1, 0.1, []
    for _ in range(length + 1000):
        xs.append(x)
        x, y = 1 - a * x * x + y, b * x
    xs = np.array(xs[1000:])
    one = np.ones_like(xs)
    return np.stack([np.stack([-2 * a * xs, one], axis=-1), np.stack([b * one, 0 * one], axis=-1)], axis=-2)


def test_the_henon_map_has_its_published_exponents():
    """Sprott, Chaos and Time-Series Analysis, 2003: 0.41922 and −1.62319; their sum is ln b at every step."""
    found = lstmx.covariant_vectors(henon(6000), transient=100)
    errors = found.standard_errors
    assert (np.abs(found.exponents - [0.41922, -1.62319]) < 3 * errors).all()
    assert errors.max() < 0.02
    np.testing.assert_allclose(found.frame_exponents.sum(), np.log(0.3), atol=1e-12)
    np.testing.assert_allclose(found.exponents.sum(), np.log(0.3), atol=10 / 5800)
    apart, _ = carried(found, henon(6000))
    assert apart.max() < 1e-8
    assert found.hyperbolicity().least < 0.05  # it has homoclinic tangencies
    assert found.hyperbolicity().quantile(0.5) > 0.3


def test_vectors_at_a_fixed_point_are_eigenvectors():
    cell = lstmx.SimpleRNN(1, 5)
    draw = draws().normal(size=(5, 5))
    recurrent = (draw + draw.T) / 4
    params = lstmx.SimpleRNNParams(np.zeros((1, 5)), recurrent, np.zeros(5))
    history = lstmx.record(cell, params, np.zeros((300, 1)))
    found = lstmx.covariant_vectors(history, transient=120)
    values, vectors = np.linalg.eigh(recurrent)
    order = np.argsort(-np.abs(values))
    same_lines(found.vectors, np.broadcast_to(vectors.T[order], found.vectors.shape), 1e-6)
    np.testing.assert_allclose(found.exponents, np.log(np.abs(values[order])), atol=1e-6)


# -------------------------------------------------------------------------------------------------- singular maps


@pytest.mark.parametrize("library", BOTH)
def test_what_a_step_takes_to_zero_has_growth_minus_infinity(library):
    matrices = draws().normal(size=(200, 5, 5))
    matrices[:, 3:] = 0  # of rank 3
    found = lstmx.covariant_vectors(to(library, matrices))
    assert np.isneginf(found.exponents).tolist() == [False, False, False, True, True]
    pushed = np.einsum("tij,tkj->tki", matrices[found.steps[1:]], found.vectors[:-1])
    np.testing.assert_allclose(pushed[:, 3:], 0, atol=1e-12)
    assert (np.linalg.matrix_rank(found.vectors) == 5).all()
    sub = lstmx.covariant_vectors(to(library, matrices), 3)
    apart, _ = carried(sub, matrices)
    assert apart.max() < 1e-8
    np.testing.assert_allclose(found.vectors[:, :3], sub.vectors, atol=1e-9)
    assert "2 exponents are −inf: the state map takes their vectors to 0" in str(found)
    assert "nan" not in str(found)


def test_a_saturated_network_has_vectors():
    cell = lstmx.SimpleRNN(2, 4)
    kernel = np.array([[1.0, 0, 0, 0], [0, 400, 1, 1]])  # unit 1 is at ±1 always: its row is 0
    params = lstmx.SimpleRNNParams(kernel, draws().normal(size=(4, 4)) / 2, np.zeros(4))
    history = lstmx.record(cell, params, draws(1).normal(size=(300, 2)) + np.array([0, 3.0]))
    found = lstmx.covariant_vectors(history)
    assert np.isneginf(found.exponents).tolist() == [False, False, False, True]
    np.testing.assert_allclose(found.exponents[:3], lstmx.lyapunov_spectrum(history).exponents[:3], atol=0.1)
    assert "1 exponent is −inf: the state map takes its vector to 0" in str(found)


def test_a_rare_loss_spoils_no_vector_for_long():
    matrices = draws().normal(size=(400, 3, 3))
    matrices[200, 2] = matrices[200, 1]  # of rank 2, once
    found = lstmx.covariant_vectors(matrices, transient=50)
    assert np.isfinite(found.vectors).all()
    apart, _ = carried(found, matrices)
    apart[200 - 51] = 0  # in that step the last vector is lost
    assert apart.max() < 1e-8


def test_the_zero_map_forgets_everything():
    found = lstmx.covariant_vectors(np.zeros((20, 3, 3)))
    assert np.isneginf(found.exponents).all()
    assert np.isnan(found.agreement)
    assert "3 exponents are −inf" in str(found)
    assert "nan" not in str(found)
    assert found.read(np.eye(3)).slowest is None


# ------------------------------------------------------------------------------------------------ what is kept


@pytest.mark.parametrize("library", BOTH)
def test_blocks_hold_the_last_vector_and_the_mean_growth(library, tmp_path):
    history = driven(library, length=200)
    whole = lstmx.covariant_vectors(history, 3, transient=21)
    some = lstmx.covariant_vectors(history, 3, transient=21, every=4)
    assert (whole.transient, some.transient) == ((21, 21), (23, 21))
    np.testing.assert_array_equal(some.steps, np.arange(26, 179, 4))
    same_lines(some.vectors, whole.vectors[some.steps - 21], 1e-9)
    np.testing.assert_allclose(some.growth, whole.growth[2:].reshape(-1, 4, 3).mean(axis=1), atol=1e-9)
    path = tmp_path / "vectors.npy"
    stored = lstmx.covariant_vectors(history, 3, transient=21, path=path)
    assert isinstance(stored.vectors, np.memmap)
    np.testing.assert_array_equal(np.load(path), whole.vectors)
    np.testing.assert_allclose(stored.shares, (whole.vectors**2).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(whole.participation, (1 / (whole.vectors**4).sum(axis=-1)).mean(axis=0), rtol=1e-12)


def test_many_vectors_are_kept_at_some_steps(monkeypatch):
    monkeypatch.setattr("lstmx.dynamics.covariant._KEPT", 600)
    found = lstmx.covariant_vectors(driven(length=200), 3)
    assert found.every == 10
    assert found.vectors.size <= 600
    assert "kept at every 10th" in str(found)


def test_steps_and_histories_on_disk_give_the_same(tmp_path):
    history = driven(length=120)
    history.save(tmp_path / "pass")
    found = lstmx.covariant_vectors(history, 2)
    for other in (lstmx.load_history(tmp_path / "pass"), lstmx.linearise(history)):
        same = lstmx.covariant_vectors(other, 2)
        np.testing.assert_array_equal(same.vectors, found.vectors)
        assert same.fields == found.fields == (("hidden", 6), ("cell", 6))
        assert same.output == (0, 6)
        assert list(same.ways) == [*history.cell.way_names, "straight"]
    bare = lstmx.covariant_vectors(lstmx.linearise(history).matrices(), 2)
    same_lines(bare.vectors, found.vectors, 1e-9)
    assert (bare.fields, bare.output, bare.ways) == ((("state", 12),), None, None)


@pytest.mark.parametrize("library", BOTH)
def test_a_padded_sequence_is_as_it_is_alone(library):
    cell = lstmx.LSTM(3, 4)
    params, xs = to(library, (cell.init(draws(), "float64"), draws(1).normal(size=(160, 3, 3))))
    lengths = np.array([160, 100, 131])
    history = lstmx.record(cell, params, xs, lengths=lengths)
    found = lstmx.covariant_vectors(history, 3, transient=20)
    for b, length in enumerate(lengths):
        alone = lstmx.covariant_vectors(history[:length].sequence(b), 3, transient=20)
        counted = length - 40
        same_lines(found.vectors[:counted, b], alone.vectors, 1e-8)
        np.testing.assert_allclose(found.growth[:counted, b], alone.growth, atol=1e-8)
        np.testing.assert_allclose(found.per_sequence[b], alone.exponents, atol=1e-8)
        assert np.isnan(found.vectors[counted:, b]).all()
        assert np.isnan(found.growth[counted:, b]).all()
        np.testing.assert_allclose(found.angles(1)[:counted, b], alone.angles(1), atol=1e-7)
    separate = [lstmx.covariant_vectors(history[:n].sequence(b), 3, transient=20) for b, n in enumerate(lengths)]
    np.testing.assert_allclose(found.settled, np.max([one.settled for one in separate], axis=0), atol=1e-7)
    assert "nan" not in str(found)


# ------------------------------------------------------------------------------------------ who carries, who reads


@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN, lstmx.JANET, lstmx.MinLSTM])
def test_ways_add_up_to_the_factor(kind):
    history = driven(kind=kind, length=100, hidden=4)
    found = lstmx.covariant_vectors(history, 2, every=2)
    matrices = np.asarray(lstmx.linearise(history).matrices())
    whole = lstmx.covariant_vectors(history, 2)
    before = whole.vectors[np.searchsorted(whole.steps, found.steps[1:] - 1)]
    pushed = np.einsum("tij,tkj->tki", matrices[found.steps[1:]], before)
    factor = (pushed * found.vectors[1:]).sum(axis=-1)
    np.testing.assert_allclose(sum(found.ways.values())[1:], factor, atol=1e-9)
    np.testing.assert_allclose(sum(found.gates.values()), 1, rtol=1e-9)


@pytest.mark.slow
def test_ways_are_those_of_automatic_derivatives():
    """Of an LSTM the part of J along each gate is the derivative with all other gates held."""
    history = driven(length=60, hidden=3)
    found = lstmx.covariant_vectors(history, 2)
    kernel, bias = history.params.recurrent_kernel, history.params.bias
    names = ["input_gate", "forget_gate", "candidate", "output_gate"]
    before = np.concat([np.stack(history.initial).reshape(1, -1), np.concat(history.states, axis=-1)[:-1]])

    def after(state, held, t, name):
        """The state after, whose pre-activations but those of one block are `held`."""
        drive = history.inputs[t] @ history.params.input_kernel + state[:3] @ kernel + bias
        blocks = [drive[3 * k : 3 * k + 3] for k in range(4)]
        i, f, g, o = (
            b if n == name else h for b, h, n in zip(blocks, held, history.cell.layout.blocks, strict=True)
        )
        return i, f, g, o

    for t, at in ((found.steps[5], 5), (found.steps[20], 20)):
        state = jnp.asarray(before[t])
        drive = history.inputs[t] @ history.params.input_kernel + before[t][:3] @ kernel + bias
        held = [drive[3 * k : 3 * k + 3] for k in range(4)]

        def step(state, name, t=t, held=held):
            i, f, g, o = after(state, held, t, name)
            old = state[3:] if name == "straight" else before[t][3:]
            c = jax.nn.sigmoid(f) * old + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jnp.concat([jax.nn.sigmoid(o) * jnp.tanh(c), c])

        assert list(history.cell.layout.blocks) == names
        for name in [*names, "straight"]:
            J = np.asarray(jax.jacobian(functools.partial(step, name=name))(state))
            expected = np.einsum("ki,ij,kj->k", found.vectors[at], J, found.vectors[at - 1])
            np.testing.assert_allclose(found.ways[name][at], expected, atol=1e-9)


def test_units_carry_what_is_theirs():
    """Units without connections: each vector is a unit's own, of which h is the part that the output shows."""
    cell = lstmx.SimpleRNN(1, 3)
    params = lstmx.SimpleRNNParams(np.zeros((1, 3)), np.diag([0.5, 0.99, 0.2]), np.zeros(3))
    found = lstmx.covariant_vectors(lstmx.record(cell, params, np.zeros((200, 1))))
    np.testing.assert_allclose(found.units["hidden"], np.eye(3)[[1, 0, 2]], atol=1e-9)
    np.testing.assert_allclose(found.participation, 1, atol=1e-9)
    assert "vector 1: 1 number takes part, most hidden 1 100%" in str(found)
    assert found.read().slowest == 0
    read = found.read(np.array([[1.0], [0], [1]]))  # the slowest unit is not read
    assert read.slowest == 1
    np.testing.assert_allclose(read.exponent, np.log(0.5), atol=1e-9)
    np.testing.assert_allclose(read.timescale, -1 / np.log(0.5), atol=1e-9)
    np.testing.assert_allclose(read.seen, np.sqrt([0, 1.5, 1.5]), atol=1e-6)  # a random direction: √(2/3)
    assert "slowest exponent that is read: -0.6931" in str(read)
    assert "of vector 2 of 3" in str(read)
    assert found.read(np.array([[0.0], [1], [0]]), threshold=0).slowest == 0


def test_a_readout_is_seen_along_every_vector():
    history = driven(length=150)
    found = lstmx.covariant_vectors(history, 4)
    readout = draws(5).normal(size=(6, 2))
    expected = np.sqrt(((found.vectors[..., :6] @ readout) ** 2).sum(axis=-1).mean(axis=0))
    unit = np.sqrt((readout**2).sum() / 12)
    np.testing.assert_allclose(found.read(readout).seen, expected / unit, rtol=1e-9)
    whole = np.concat([readout, np.zeros((6, 2))])
    np.testing.assert_allclose(found.read(whole).seen, expected / unit, rtol=1e-9)
    np.testing.assert_allclose(found.read(jnp.asarray(readout)).seen, expected / unit, rtol=1e-6)


def test_layers_are_one_system():
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 3)])
    history = lstmx.record(stack, stack.init(draws(), "float64"), draws(1).normal(size=(150, 3)))
    found = lstmx.covariant_vectors(history, "all")
    assert found.fields == (("layer 0 hidden", 4), ("layer 0 cell", 4), ("layer 1 hidden", 3))
    assert found.output == (8, 11)
    assert found.gates is None
    apart, _ = carried(found, lstmx.linearise(history).matrices())
    assert apart.max() < 1e-8


# ------------------------------------------------------------------------------------------------------ words


def test_one_vector_is_told_as_one():
    found = lstmx.covariant_vectors(driven(length=150), 1)
    first = str(found).splitlines()[0]
    assert first == (
        "1 covariant Lyapunov vector of a joint state of 12: from 120 steps, 15 before and 15 after left out"
    )
    assert "angle" not in str(found)
    assert found._repr_html_().startswith("<pre>1 covariant Lyapunov vector of")
    with pytest.raises(ValueError, match="split has no value with 1 covariant vector"):
        found.hyperbolicity()
    assert len(found) == 1
    assert repr(found) == "CovariantVectors(1 of 12 vectors, 120 blocks of 1)"
    batch = lstmx.covariant_vectors(driven(length=40, batch=(1,)), 1)
    assert "from 32 steps of 1 sequence, 4 before" in str(batch)


def test_what_has_not_settled_is_told():
    found = lstmx.covariant_vectors(driven(length=30), 3, transient=0)
    assert "NOT settled: from another start the spans of frames up to 1, 2, 3 differ by up to" in str(found)
    settled = lstmx.covariant_vectors(driven(length=600), 1, transient=200)
    assert "other starts lead to the same within" in str(settled)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"count": 13}, "count is 13; the joint state has 12 numbers, and as many vectors"),
        ({"count": "most"}, "count is 'most'; expected an integer, 'all' or None"),
        ({"transient": 20}, "transient is 20; expected less than half of the 40 steps of the pass"),
        ({"every": 33}, "every is 33; expected at most the 32 steps of the pass that count"),
        ({"path": "vectors.txt"}, "path is 'vectors.txt'; expected the path of an .npy file"),
    ],
)
def test_options_are_checked(given, words):
    with pytest.raises(ValueError, match=words):
        lstmx.covariant_vectors(driven(length=40), **given)


def test_what_is_taken_is_named():
    every = r"expected a History, .* its LinearSteps, or Jacobians \[T, \*batch, S, S\] as one array"
    for wrong in ([np.eye(2)], 3, None):
        with pytest.raises(TypeError, match=f"history is a {type(wrong).__name__}; {every}"):
            lstmx.covariant_vectors(wrong)
    with pytest.raises(ValueError, match=r"expected steps along time, \[T, \*batch\]"):
        lstmx.covariant_vectors(lstmx.linearise(driven(length=40))[3])
    with pytest.raises(ValueError, match="entry is nan first at step 0"):
        lstmx.covariant_vectors(np.full((5, 2, 2), np.nan))
    with pytest.raises(TypeError, match="covariant_vectors cannot run"):
        jax.jit(lstmx.covariant_vectors)(jnp.ones((9, 2, 2)))


def test_a_readout_is_checked():
    found = lstmx.covariant_vectors(driven(length=40), 2)
    for wrong, words in (
        (np.ones((3, 2)), r"readout has shape \(3, 2\); expected \[12, R\] of the joint state, or \[6, R\]"),
        (np.zeros((6, 2)), "readout holds only zeros"),
        (np.full((6, 2), np.inf), "readout holds NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=words):
            found.read(wrong)
    with pytest.raises(TypeError, match="readout is a list"):
        found.read([[1.0]])
    with pytest.raises(ValueError, match="outputs are no part of this joint state"):
        lstmx.covariant_vectors(np.broadcast_to(np.eye(2), (9, 2, 2))).read()


# ----------------------------------------------------------------------------------------------------- the figure


@pytest.mark.slow
def test_the_figure_holds_what_was_found():
    found = lstmx.covariant_vectors(driven(length=150), 3)
    read = found.read(np.eye(6)[:, :2])
    figure = lstmx.plot.covariant(found, read=read)
    figure.draw_without_rendering()
    carriers, growth, angles = (ax for ax in figure.axes if ax.get_label() != "<colorbar>")
    image = carriers.images[0].get_array()
    np.testing.assert_allclose(image[:: image.shape[0] // 12][:12, :: image.shape[1] // 3][:, :3], found.shares.T)
    assert [text.get_text() for text in carriers.get_xticklabels()] == ["1", "2", "3"]
    rows = [text.get_text() for text in carriers.get_yticklabels()]
    assert rows == [*rows[: len(rows) // 2]] * 2  # counted anew in each field
    assert carriers.get_ylabel() == "unit: hidden, then cell"
    np.testing.assert_array_equal(growth.lines[0].get_xdata(), found.steps)
    np.testing.assert_allclose(growth.lines[1].get_ydata(), found.growth[:, 1])
    legend = [text.get_text() for text in growth.get_legend().get_texts()]
    assert legend[-1].startswith(f"λ{read.slowest + 1}, read = −0.")
    np.testing.assert_allclose(angles.lines[0].get_ydata(), found.hyperbolicity().angles)


def test_an_exponent_of_minus_infinity_stands_in_the_legend_with_its_line():
    matrices = draws().normal(size=(60, 3, 3))
    matrices[:, 2] = 0
    growth = lstmx.plot.covariant(lstmx.covariant_vectors(matrices)).axes[1]
    lines, texts = growth.get_legend().get_lines(), growth.get_legend().get_texts()
    assert texts[2].get_text() == "λ3 = −inf"
    assert lines[2].get_color() == growth.lines[2].get_color()
    assert lines[2].get_linestyle() == "-"


def test_the_figure_refuses_what_is_another():
    found = lstmx.covariant_vectors(driven(length=40), 2)
    with pytest.raises(TypeError, match="found is a int; expected a CovariantVectors"):
        lstmx.plot.covariant(3)
    with pytest.raises(
        TypeError, match=r"read is a float; expected a ReadExponents, as from found.read\(readout\)"
    ):
        lstmx.plot.covariant(found, read=0.5)
    with pytest.raises(ValueError, match="read is of 1 vectors; expected one of these 2"):
        lstmx.plot.covariant(found, read=lstmx.covariant_vectors(driven(length=40), 1).read())
