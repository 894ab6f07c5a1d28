"""Loops over stretches of time: against the loop over steps."""

import jax
import numpy as np
import pytest
from reference import assert_close, to

from lstmx.arrays import namespace, scan
from lstmx.scans.chunks import chunk_length, scan_chunks


@pytest.mark.sample(8)
@pytest.mark.parametrize("size", [1, 2, 3, 7], ids="size {}".format)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("in_place", [False, True], ids=["stacked", "in place"])
def test_chunks_are_the_loop_over_steps(library, size, reverse, in_place):
    draws = np.random.default_rng(0)
    xs, carry, own = to(library, (draws.normal(size=(7, 2)), np.ones(2), np.arange(-(-7 // size)) + 10.0))
    xp = namespace(xs)

    def step(carry, x):
        carry = xp.cos(carry) + x
        return carry, 2 * carry

    def chunk(carry, part, own):
        carry, rows = scan(step, carry, part, reverse=reverse)
        return carry, {"rows": rows}, (own, carry)

    into = {"rows": xp.zeros((7, 2), dtype=xs.dtype)} if in_place else None
    last, rows, (found, carries) = scan_chunks(chunk, carry, xs, size, own=own, into=into, reverse=reverse)
    expected, expected_rows = scan(step, carry, xs, reverse=reverse)
    assert_close((last, rows["rows"]), (expected, expected_rows), 1e-14)
    np.testing.assert_array_equal(found, own)
    head = 7 % size or size
    ends = range(head - 1, 7, size) if not reverse else [0, *range(head, 7, size)]
    assert_close(2 * carries, expected_rows[np.array(list(ends))], 1e-14)


def test_the_length_of_a_chunk_divides_where_it_can():
    assert chunk_length(1000, 128) == 250
    assert chunk_length(1000, 2**20) == 10
    assert chunk_length(5, 1) == 5
    assert chunk_length(521, 128) == 256
    assert chunk_length(1, 10**9) == 1
    for length in range(1, 600):
        assert 1 <= chunk_length(length, 128) <= min(length, 256)


@pytest.mark.slow
def test_chunks_can_be_differentiated():
    xs = jax.numpy.asarray(np.random.default_rng(0).normal(size=(7, 2)))

    def total(xs, size):
        def chunk(carry, part, own):
            rows = jax.numpy.cumsum(part**2, axis=0) + carry
            return rows[-1], rows, None

        return jax.numpy.sum(scan_chunks(chunk, xs[0], xs, size)[1] ** 2)

    assert_close(jax.grad(total)(xs, 3), jax.grad(total)(xs, 7), 1e-12)
