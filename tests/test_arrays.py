"""Which library a value belongs to, and that what differs between NumPy and JAX gives the same numbers."""

import dataclasses
import warnings
from typing import Any, NamedTuple

import array_api_strict
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from reference import assert_close, assert_same, is_in, to

from lstmx import arrays
from lstmx.draws import Draws, float_dtype

XP = {"numpy": np, "jax": jnp}
MAGNITUDES = {"float32": (1e-3, 1, 17, 30, 80), "float64": (1e-3, 1, 17, 30, 80, 300)}


class Pair(NamedTuple):
    left: Any
    right: Any


# --------------------------------------------------------------------------------------- which library


def test_jax_wins_over_numpy():
    host, device = np.ones(2), jnp.ones(2)
    assert arrays.namespace(host, host[0]) is np
    assert arrays.namespace(device) is jnp
    assert arrays.namespace(host, device) is arrays.namespace(device, host) is jnp
    assert arrays.namespace(3.0, None, host) is np
    assert arrays.is_jax(jnp)
    assert not arrays.is_jax(np)


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f, x: jax.jit(f)(x),
        lambda f, x: jax.grad(f)(x),
        lambda f, x: jax.vmap(f)(x[None]),
        lambda f, x: jax.jvp(f, (x,), (x,)),
        lambda f, x: jax.eval_shape(f, x),
        lambda f, x: jax.lax.scan(lambda carry, x: (carry, f(x)), 0.0, x[None]),
    ],
    ids=["jit", "grad", "vmap", "jvp", "eval_shape", "scan"],
)
def test_every_tracer_is_jax(transformed):
    seen = []

    def look(x):
        seen.append((arrays.namespace(x, np.ones(3)), arrays.is_traced({"leaf": (x, None)})))
        return jnp.sum(x)

    transformed(look, jnp.ones(3))
    assert set(seen) == {(jnp, True)}


def test_numbers_that_can_be_read_are_not_traced():
    assert not arrays.is_traced(jnp.ones(3), {"host": np.ones(3)}, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "expected arrays of NumPy or of JAX, got nothing"),
        (([1.0], 2.0), "got float, list"),
        ((array_api_strict.ones(2), np.ones(2), jnp.ones(2)), "expected arrays of NumPy or of JAX"),
    ],
)
def test_what_is_no_array_has_no_namespace(values, message):
    with pytest.raises(TypeError, match=message):
        arrays.namespace(*values)


def test_an_absent_package_is_named_with_what_needs_it():
    message = "drawing needs the package absent_package, which is not installed: pip install absent_package"
    with pytest.raises(ImportError, match=message):
        arrays.require("absent_package.part", "drawing")
    assert arrays.require("os.path", "nothing").join("a", "b") == "a/b"


# ------------------------------------------------------------------------------------------------ trees


def test_trees_are_mapped_in_order_and_keep_their_kind():
    tree = {"pair": Pair(np.ones(1), None), "plain": (np.full(1, 2.0), np.full(1, 3.0))}
    assert [float(leaf[0]) for leaf in arrays.leaves(tree)] == [1, 2, 3]
    doubled = arrays.map_tree(lambda x, y: x + y, tree, tree)
    assert isinstance(doubled["pair"], Pair)
    assert doubled["pair"].right is None
    assert [float(leaf[0]) for leaf in arrays.leaves(doubled)] == [2, 4, 6]
    with pytest.raises(ValueError, match="zip"):
        arrays.map_tree(lambda x, y: x, (1, 2), (1,))


def test_a_result_is_frozen_compares_by_identity_and_is_a_pytree():
    @arrays.result(static=("name",))
    class Example:
        name: str
        values: Any

    one, other = Example("a", np.ones(2)), Example("a", np.ones(2))
    assert one != other
    assert one == one
    assert "Example(name='a'" in repr(one)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "b"
    assert jax.tree.structure(one) == jax.tree.structure(other) != jax.tree.structure(Example("b", np.ones(2)))
    doubled = jax.jit(lambda example: jax.tree.map(lambda x: 2 * x, example))(one)
    assert isinstance(doubled, Example)
    assert doubled.name == "a"
    np.testing.assert_array_equal(doubled.values, [2, 2])


# ------------------------------------------------------------------------------------------------ loops


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 5])
def test_scan_of_numpy_is_scan_of_jax(length, reverse):
    xs = {"x": np.arange(1.0, length + 1), "none": None}

    def step(carry, x):
        after = Pair(2 * carry.left + x["x"], carry.right + 1)
        return after, (after.left, None, Pair(carry.right, x["x"]))

    results = []
    for library in ("numpy", "jax"):
        start = to(library, Pair(np.array(0.5), np.array(0)))
        results.append(arrays.scan(step, start, to(library, xs), reverse=reverse))
        assert is_in(library, results[-1][1])
    assert_same(*(to("numpy", result) for result in results))
    order = range(length, 0, -1) if reverse else range(1, length + 1)
    expected = 0.5
    for x in order:
        expected = 2 * expected + x
    assert results[0][0].left == expected
    assert results[0][1][0][0 if reverse else -1] == expected


def test_jit_compiles_jax_and_leaves_numpy_alone():
    calls = []

    @arrays.jit(static=("word",))
    def double(x, word):
        calls.append(arrays.is_traced(x))
        return 2 * x if word == "double" else x

    for _ in range(2):
        np.testing.assert_array_equal(double(np.ones(2), word="double"), [2, 2])
        np.testing.assert_array_equal(double(jnp.ones(2), word="double"), [2, 2])
    assert sorted(calls) == [False, False, True]
    assert double.__name__ == "double"


@pytest.mark.parametrize("library", XP)
def test_a_materialised_transpose_is_the_transpose(library):
    x = to(library, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(arrays.materialised(x.T), np.asarray(x).T)
    assert library == "jax" or arrays.materialised(x.T).flags.c_contiguous


# -------------------------------------------------------------------------------------------- functions


def relative_errors(actual, exact):
    """|actual − exact| / exact for numbers that the type can hold as normal; those below must be 0 or tiny."""
    tiny = np.finfo(actual.dtype).tiny
    for value, truth in zip(np.asarray(actual), exact, strict=True):
        if abs(truth) < tiny:
            assert abs(value) <= tiny
        else:
            yield float(abs((mpmath.mpf(float(value)) - truth) / truth))


@pytest.mark.parametrize("dtype", MAGNITUDES)
@pytest.mark.parametrize("library", XP)
def test_slopes_and_logarithms_are_relatively_accurate_where_gates_are_closed(library, dtype):
    a = np.array([sign * size for size in MAGNITUDES[dtype] for sign in (1, -1)], dtype)
    value, slope = arrays.sigmoid_and_slope(XP[library], to(library, a))
    with mpmath.workdps(50):
        exact = [mpmath.mpf(float(x)) for x in a]
        expected = [
            (value, [1 / (1 + mpmath.exp(-x)) for x in exact]),
            (slope, [mpmath.exp(-x) / (1 + mpmath.exp(-x)) ** 2 for x in exact]),
            (arrays.tanh_slope(XP[library], to(library, a)), [mpmath.sech(x) ** 2 for x in exact]),
            (arrays.log_sigmoid(to(library, a)), [-mpmath.log1p(mpmath.exp(-x)) for x in exact]),
        ]
        for actual, truth in expected:
            assert actual.dtype == dtype
            assert max(relative_errors(actual, truth)) < 3 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", MAGNITUDES)
@pytest.mark.parametrize("library", XP)
def test_sigmoid_is_absolutely_accurate(library, dtype):
    a = np.array([sign * size for size in MAGNITUDES[dtype] for sign in (1, -1)], dtype)
    actual = arrays.sigmoid(XP[library], to(library, a))
    assert actual.dtype == dtype
    with mpmath.workdps(50):
        exact = [1 / (1 + mpmath.exp(-mpmath.mpf(float(x)))) for x in a]
        assert (
            max(abs(float(value) - truth) for value, truth in zip(actual, exact, strict=True))
            < np.finfo(dtype).eps
        )


@pytest.mark.parametrize("dtype", MAGNITUDES)
@pytest.mark.parametrize("library", XP)
def test_nothing_overflows_or_warns_at_ten_thousand(library, dtype):
    a = to(library, np.array([-1e4, 1e4], dtype))
    xp = XP[library]
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        value, slope = arrays.sigmoid_and_slope(xp, a)
        np.testing.assert_array_equal(arrays.sigmoid(xp, a), [0, 1])
        np.testing.assert_array_equal(value, [0, 1])
        np.testing.assert_array_equal(slope, [0, 0])
        np.testing.assert_array_equal(arrays.tanh_slope(xp, a), [0, 0])
        np.testing.assert_array_equal(arrays.log_sigmoid(a), [-1e4, 0])


@pytest.mark.parametrize("length", [1, 2, 10, 1000])
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("library", XP)
def test_sum_over_time_counts_every_step_once(library, x64, length):
    with jax.enable_x64(x64):
        x = np.arange(length * 3, dtype="float32").reshape(length, 3)
        total = arrays.sum_over_time(to(library, x))
        np.testing.assert_array_equal(total, x.astype("float64").sum(axis=0))  # integers below 2^24 are exact
        assert total.dtype == ("float32" if library == "jax" and not x64 else "float64")


def test_a_long_float32_sum_does_not_drift():
    with jax.enable_x64(False):
        x = jnp.full((1_000_000, 1), 0.1, dtype="float32")
        assert float(arrays.sum_over_time(x)[0]) == pytest.approx(1e6 * float(np.float32(0.1)), rel=1e-6)
    assert np.cumsum(np.full(1_000_000, 0.1, "float32"))[-1] != pytest.approx(1e5, rel=1e-4)  # the running sum


# ------------------------------------------------------------------------------------------ random draws


@pytest.mark.parametrize("library", XP)
def test_each_draw_is_fresh_and_the_seed_repeats_it(library):
    def source():
        return Draws(np.random.default_rng(3) if library == "numpy" else jax.random.key(3))

    draws, again = source(), source()
    first, second = draws.normal((50,), "float32"), draws.normal((50,), "float32")
    assert is_in(library, first)
    assert first.dtype == "float32"
    assert not np.array_equal(first, second)
    assert_same((first, second), (again.normal((50,), "float32"), again.normal((50,), "float32")))
    low, high = (float(f(draws.uniform((500,), "float64", -2.0, 3.0))) for f in (np.min, np.max))
    assert -2 <= low < -1.8
    assert 2.8 < high < 3


@pytest.mark.parametrize("library", XP)
def test_orthogonal_blocks_have_signs_as_often_as_not(library):
    # The Haar measure is symmetric; a QR without the sign correction has diagonals of R of one sign, and
    # would give a negative first entry in nearly every block of size 1.
    draws = Draws(np.random.default_rng(0) if library == "numpy" else jax.random.key(0))
    signs = np.asarray(draws.orthogonal(1, 200, "float64"))[0]
    assert set(signs) == {-1.0, 1.0}
    assert 70 < np.sum(signs > 0) < 130


def test_float_dtypes_are_two():
    assert float_dtype(np, np.float32) == float_dtype(jnp, "float32") == np.dtype("float32")
    assert float_dtype(jnp, float) == np.dtype("float64")
    for dtype in ("float16", "int32", "complex64", "nonsense"):
        with pytest.raises(ValueError, match="expected float32 or float64"):
            float_dtype(np, dtype)
    with jax.enable_x64(False):
        assert float_dtype(np, "float64") == np.dtype("float64")
        with pytest.raises(ValueError, match=r"float64 switched off .*jax_enable_x64"):
            float_dtype(jnp, "float64")


def test_to_numpy_brings_a_tree_to_the_host():
    tree = {"pair": Pair(jnp.ones(2), None)}
    host = arrays.to_numpy(tree)
    assert is_in("numpy", host)
    assert_close(host, tree, 0)
