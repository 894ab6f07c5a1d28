"""Numbers beyond the float range: scaling by powers of two changes no digit, and every log norm is right."""

import hypothesis.strategies as st
import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from reference import assert_same, to

from lstmx.arrays import namespace
from lstmx.scaling import (
    NOTHING,
    Scaled,
    add,
    exponent_of,
    log_hypot,
    log_norm,
    magnitude,
    normalised,
    pack,
    power_of_two,
    scaled,
    total,
    unpack,
    unscaled,
)

BIAS = {"float32": 127, "float64": 1023}
TINY = {"float32": 1e-7, "float64": 1e-15}

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def exponents(library, values):
    return to(library, np.asarray(values, np.int32))


def draw(dtype, seed, shape=(3, 4), spread=100):
    """Numbers of both signs over 2^±spread, a zero among them."""
    draws = np.random.default_rng(seed)
    values = draws.choice([-1.0, 1.0], shape) * draws.uniform(1, 2, shape)
    values = np.ldexp(values.astype(dtype), draws.integers(-spread // 2, spread // 2, shape))
    values.flat[draws.integers(values.size)] = 0
    return values


def exact_log_norm(numbers, exponent=0):
    """Of a flat list of floats times 2^exponent, in 60 digits."""
    with mpmath.workdps(60):
        square = mpmath.fsum(mpmath.mpf(float(x)) ** 2 for x in np.ravel(numbers))
        return float(mpmath.log(square) / 2 + int(exponent) * mpmath.log(2))


def test_a_power_of_two_is_exact_over_the_normal_range(library, dtype):
    powers = np.arange(1 - BIAS[dtype], BIAS[dtype] + 1, dtype=np.int32)
    made = power_of_two(to(library, powers), dtype)
    assert_same(made, np.ldexp(np.ones(1, dtype), powers))


@pytest.mark.parametrize("beyond", [0, 1, 1000, 2**29, 2**30])
def test_a_power_of_two_out_of_range_is_zero_or_infinite_without_a_warning(library, dtype, beyond):
    powers = exponents(library, [-BIAS[dtype] - beyond, BIAS[dtype] + 1 + beyond])
    assert_same(power_of_two(powers, dtype), np.array([0, np.inf], dtype))


@pytest.mark.slow
@settings(max_examples=15)
@given(seeds)
def test_the_exponent_of_a_normal_number_is_that_of_frexp(seed):
    for dtype in BIAS:
        values = np.abs(draw(dtype, seed, spread=250))
        values[values == 0] = 1
        assert_same(exponent_of(np, values), (np.frexp(values)[1] - 1).astype(np.int32))


def test_the_exponent_at_the_ends_of_the_range_and_of_zero_is_in_it(library, dtype):
    limits = np.finfo(dtype)
    values = to(library, np.array([0, limits.tiny, limits.max], dtype))
    zero, low, high = np.asarray(exponent_of(namespace(values), values))
    assert -BIAS[dtype] < zero < BIAS[dtype]
    assert low == 1 - BIAS[dtype]
    assert high in (BIAS[dtype] - 1, BIAS[dtype])


@pytest.mark.sample(3)
def test_scaling_and_unscaling_gives_the_same_bits(library, dtype):
    for seed in range(5):
        values = draw(dtype, seed)
        number = scaled(to(library, values))
        assert_same(unscaled(number), values)
        assert number.exponent.dtype == np.int32
        assert number.exponent.shape == (3,)


def test_a_scaled_number_has_its_greatest_magnitude_between_one_and_two(library, dtype):
    number = scaled(to(library, draw(dtype, 0)), exponents(library, 7))
    for made in (number, normalised(number._replace(value=number.value * 1024))):
        size = np.asarray(magnitude(np, np.asarray(made.value)))
        assert (size >= 1).all()
        assert (size < 2).all()


@settings(max_examples=15)
@given(seeds, st.integers(-5000, 5000))
def test_normalising_changes_the_scale_and_no_digit(seed, exponent):
    for dtype in BIAS:
        values = draw(dtype, seed)
        given_ = Scaled(values, np.full(3, exponent, np.int32))
        made = normalised(given_)
        difference = (made.exponent - given_.exponent)[:, None]
        assert_same(np.ldexp(made.value, difference), values)
        assert_same(normalised(made), made)
        again = Scaled(made.value, made.exponent - np.int32(exponent))
        assert_same(unscaled(again), values)


def test_the_numbers_of_one_row_share_an_exponent_and_rows_do_not(library, dtype):
    values = to(library, np.array([[4, 1], [0.25, 0.125], [0, 0]], dtype))
    number = scaled(values)
    assert_same(number.exponent, np.array([2, -2, NOTHING], np.int32))
    assert_same(number.value, np.array([[1, 0.25], [1, 0.5], [0, 0]], dtype))


@pytest.mark.sample(3)
def test_an_exact_zero_has_the_least_exponent_and_keeps_it(library, dtype):
    number = scaled(to(library, np.zeros((2, 3), dtype)), exponents(library, 900))
    assert_same(number.exponent, np.full(2, NOTHING, np.int32))
    for _ in range(3):
        number = normalised(number)
    assert_same(number.value, np.zeros((2, 3), dtype))
    assert (np.asarray(number.exponent) <= NOTHING + 2).all()
    assert (np.asarray(number.exponent) >= NOTHING).all()  # below it, sums of exponents would wrap round
    assert_same(unscaled(number), np.zeros((2, 3), dtype))


def test_adding_a_zero_changes_no_bit(library, dtype):
    number = scaled(to(library, draw(dtype, 1)), exponents(library, -4000))
    zero = scaled(to(library, np.zeros((3, 4), dtype)))
    assert_same(add(number, zero), number)
    assert_same(add(zero, number), number)
    assert_same(add(zero, zero), zero)


@pytest.mark.sample(3)
def test_normalising_a_zero_lets_a_small_number_be_added_to_it_whatever_scale_it_came_from(library, dtype):
    """A cotangent that exploded and then met a shut gate is an exact zero at a large exponent."""
    zero = normalised(Scaled(to(library, np.zeros((1, 2), dtype)), exponents(library, [5000])))
    small = scaled(to(library, np.array([[1, -3]], dtype)))
    assert_same(unscaled(add(zero, small)), np.array([[1, -3]], dtype))


@pytest.mark.parametrize("exponent", [0, -6000, 6000])
def test_a_sum_in_scale_is_the_plain_sum(library, dtype, exponent):
    left, right = draw(dtype, 2, spread=20), draw(dtype, 3, spread=20)
    made = add(*(scaled(to(library, x), exponents(library, exponent)) for x in (left, right)))
    assert_same(unscaled(made._replace(exponent=made.exponent - np.int32(exponent))), left + right)


def test_a_far_smaller_number_leaves_a_sum_as_it_is(library, dtype):
    large = scaled(to(library, draw(dtype, 4)), exponents(library, 3000))
    small = scaled(to(library, draw(dtype, 5)), exponents(library, -3000))
    assert_same(add(large, small), large)
    assert_same(add(small, large), large)


def test_a_total_over_the_first_axis_is_the_plain_sum(library, dtype):
    values = draw(dtype, 6, shape=(5, 2, 3), spread=10)
    number = scaled(to(library, values))
    expected = values.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(unscaled(total(number)), expected, rtol=100 * TINY[dtype])
    shifted = total(number._replace(exponent=number.exponent + np.int32(-9000)))
    assert_same(unscaled(shifted._replace(exponent=shifted.exponent + np.int32(9000))), unscaled(total(number)))


def test_a_total_takes_rows_of_every_scale_and_of_none(library, dtype):
    values = to(library, np.array([[[3.0]], [[0.0]], [[5.0]]], dtype))
    number = Scaled(values, exponents(library, [[-2000], [NOTHING], [2000]]))
    assert_same(total(number), Scaled(np.array([[5.0]], dtype), np.array([2000], np.int32)))


def test_unscaling_beyond_the_range_gives_zero_and_infinity_without_a_warning(library, dtype):
    row = np.array([0, 1.5, -1], dtype)
    for exponent in (BIAS[dtype] + 1, 2 * BIAS[dtype] - 5, 5000, 2**30):
        number = Scaled(to(library, row), exponents(library, exponent))
        assert_same(unscaled(number), np.array([0, np.inf, -np.inf], dtype))
        number = Scaled(to(library, row), exponents(library, -2 * exponent if exponent < 2**29 else NOTHING))
        assert_same(abs(unscaled(number)), np.zeros(3, dtype))


def test_unscaling_reaches_both_ends_of_the_normal_range(library, dtype):
    row = np.array([1, -1.25, 1.75], dtype)
    for exponent in (1 - BIAS[dtype], BIAS[dtype]):
        made = unscaled(Scaled(to(library, row), exponents(library, exponent)))
        assert_same(made, np.ldexp(row, exponent))


def test_unscaling_below_the_normal_range_gives_subnormals_in_numpy(dtype):
    """XLA on the CPU takes subnormals as zero, so this holds in NumPy alone."""
    row = np.array([1, -1.25, 1.75, 0], dtype)
    for below in (1, 3, np.finfo(dtype).nmant):
        exponent = 1 - BIAS[dtype] - below
        made = unscaled(Scaled(row, np.int32(exponent)))
        assert_same(made, np.ldexp(row, exponent))


def test_subnormal_numbers_keep_their_digits_when_scaled_in_numpy(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    values = np.array([[3 * smallest, -5 * smallest]], dtype)
    number = scaled(values)
    assert_same(unscaled(number), values)
    assert float(log_norm(number)[0]) == pytest.approx(exact_log_norm(values), rel=TINY[dtype])
    assert float(log_norm(normalised(number))[0]) == pytest.approx(exact_log_norm(values), rel=TINY[dtype])


def test_an_infinity_stays_one(library, dtype):
    values = np.array([1, np.inf, -np.inf], dtype)
    assert_same(unscaled(scaled(to(library, values))), values)


EXPONENTS = [
    0,
    1,
    -1,
    5,
    -5,
    127,
    -126,
    1023,
    -1022,
    2**22,
    -(2**22) - 1,
    -(2**22),
    -86_000_000,
    86_000_000,
    NOTHING,
]


def test_packing_keeps_every_bit_of_value_and_exponent(library, dtype):
    """An exponent's bits pass as a float's: a NaN's where it is negative, a subnormal's where it is small."""
    values = draw(dtype, 7, shape=(len(EXPONENTS), 4))
    number = Scaled(to(library, values), exponents(library, EXPONENTS))
    assert pack(number).shape == (len(EXPONENTS), 5)
    made = unpack(pack(number))
    assert_same(made, Scaled(values, np.array(EXPONENTS, np.int32)))


def test_packed_exponents_survive_a_compiled_loop(dtype):
    def loop(packed):
        def step(packed, _):
            number = unpack(packed)
            packed = pack(number._replace(exponent=number.exponent + np.int32(1)))
            return packed, packed

        return jax.lax.scan(step, packed, None, length=3)

    values = draw(dtype, 9, shape=(len(EXPONENTS), 2))
    number = Scaled(jax.numpy.asarray(values), exponents("jax", EXPONENTS))
    last, every = jax.jit(loop)(pack(number))
    assert_same(unpack(last), Scaled(values, np.array(EXPONENTS, np.int32) + 3))
    assert_same(unpack(every).exponent, np.array(EXPONENTS, np.int32) + np.array([[1], [2], [3]], np.int32))


@pytest.mark.parametrize("exponent", [0, -18_711, 2_885, 123_456_789])
def test_a_log_norm_is_that_of_sixty_digits(library, dtype, exponent):
    left, right = draw(dtype, 10, shape=(1, 4)), draw(dtype, 11, shape=(1, 4))
    number = Scaled(to(library, np.concatenate([left, right], axis=-1)), exponents(library, [exponent]))
    expected = exact_log_norm([*left[0], *right[0]], exponent)
    np.testing.assert_allclose(log_norm(number), [expected], rtol=2 * TINY[dtype])
    assert log_norm(number).dtype == dtype


def test_a_log_norm_counts_no_square_beyond_the_range(library, dtype):
    limits = np.finfo(dtype)
    for size in (limits.max, limits.tiny, 2 * limits.tiny):
        values = np.full((1, 4), size, dtype)
        made = log_norm(Scaled(to(library, values), exponents(library, [0])))
        np.testing.assert_allclose(made, [exact_log_norm(values)], rtol=2 * TINY[dtype])


def test_the_log_norm_of_a_part_far_smaller_than_the_whole_is_right(library, dtype):
    small = np.finfo(dtype).tiny
    whole = np.array([[1.5, 1, 3 * small, 4 * small]], dtype)
    number = Scaled(to(library, whole), exponents(library, [-7000]))
    part = log_norm(number._replace(value=number.value[:, 2:]))
    np.testing.assert_allclose(part, [np.log(5.0) + np.log(float(small)) - 7000 * np.log(2)], rtol=2 * TINY[dtype])
    np.testing.assert_allclose(log_norm(number), [exact_log_norm(whole[:, :2], -7000)], rtol=2 * TINY[dtype])


@pytest.mark.sample(2)
def test_the_log_norm_of_a_zero_is_minus_infinity_at_every_exponent(library, dtype):
    number = Scaled(to(library, np.zeros((4, 2), dtype)), exponents(library, [NOTHING, -3, 0, 5000]))
    assert_same(log_norm(number), np.full(4, -np.inf, dtype))


@settings(max_examples=15)
@given(seeds, st.integers(-(10**6), 10**6))
def test_log_norms_of_scaled_and_of_normalised_numbers_agree(seed, exponent):
    values = draw("float64", seed)
    number = Scaled(values, np.full(3, exponent, np.int32))
    expected = [exact_log_norm(row, exponent) for row in values]
    np.testing.assert_allclose(log_norm(number), expected, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(log_norm(normalised(number)), expected, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(log_norm(scaled(values, np.int32(exponent))), expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("offset", [0.0, -12_969.0, 4_000.0])
def test_the_log_of_a_root_of_a_sum_of_squares_is_that_of_sixty_digits(library, dtype, offset):
    logs = np.random.default_rng(12).normal(size=(3, 5)).astype(dtype)
    made = log_hypot(to(library, logs + np.asarray(offset, dtype)), axis=0)
    with mpmath.workdps(60):
        columns = (logs + np.asarray(offset, dtype)).astype(np.float64).T
        expected = [
            float(mpmath.log(mpmath.fsum(mpmath.exp(2 * mpmath.mpf(x)) for x in column)) / 2) for column in columns
        ]
    np.testing.assert_allclose(made, expected, rtol=4 * TINY[dtype], atol=4 * TINY[dtype])
    assert made.dtype == dtype


@pytest.mark.sample(1)
def test_the_log_of_a_root_of_a_sum_of_squares_takes_zeros(library, dtype):
    logs = np.array([[-np.inf, -np.inf, 2], [-np.inf, 1, -np.inf]], dtype)
    assert_same(log_hypot(to(library, logs), axis=0), np.array([-np.inf, 1, 2], dtype))
    assert_same(log_hypot(to(library, logs), axis=1), np.array([2, 1], dtype))
