"""All prefixes of an associative operation: those that are combined one after another."""

import functools

import jax
import numpy as np
import pytest
from reference import to

from lstmx.arrays import map_tree, namespace
from lstmx.scans.prefixes import associative_scan


def affine(earlier, later):
    """(a, b) is x -> a x + b: associative, and not commutative."""
    (a, b), (c, d) = earlier, later
    return c * a, c * b + d


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "length",
    [1, 2, 3, 5, 10, 17, 97, *(pytest.param(length, marks=pytest.mark.slow) for length in (4, 9, 16, 100))],
)
@pytest.mark.parametrize("shape", [(), pytest.param((3,), marks=pytest.mark.slow), (2, 3)])
def test_prefixes(library, length, shape):
    rng = np.random.default_rng(length)
    tree = tuple(rng.normal(size=(length, *shape)) for _ in range(2))
    rows = list(zip(*tree, strict=True))
    expected = [functools.reduce(affine, rows[: t + 1]) for t in range(length)]
    found = associative_scan(affine, to(library, tree))
    for x, y in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(x, np.stack(y), rtol=1e-12, atol=1e-13)


@pytest.mark.sample(3)
@pytest.mark.parametrize("length", [1, 3, 17])
def test_matrices_are_not_exchanged(library, length):
    given = to(library, np.random.default_rng(0).normal(size=(length, 2, 2)))
    found = associative_scan(lambda earlier, later: namespace(later).matmul(later, earlier), given)
    product = np.eye(2)
    for x, y in zip(np.asarray(given), np.asarray(found), strict=True):
        product = x @ product
        np.testing.assert_allclose(y, product, rtol=1e-12)


@pytest.mark.slow
def test_under_vmap_and_grad():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 23))

    def last(a, b):
        return associative_scan(affine, (a, b))[1][-1]

    def plain(a, b):
        x = 0.0
        for t in range(len(b)):
            x = a[t] * x + b[t]
        return x

    given = map_tree(jax.numpy.asarray, (a, b))
    np.testing.assert_allclose(jax.vmap(last)(*given), [plain(*x) for x in zip(a, b, strict=True)], rtol=1e-12)
    found = jax.vmap(jax.grad(last, (0, 1)))(*given)
    for x, y in zip(found, jax.vmap(jax.grad(plain, (0, 1)))(*given), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)
