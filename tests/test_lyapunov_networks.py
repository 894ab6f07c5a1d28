"""Spectra of wide random networks against dynamic mean-field theory and published-style simulations.

The map x' = J tanh(x) + s ξ of the theory and a SimpleRNN h' = tanh(J h + s ξ) are one system seen at two places,
x = J h + s ξ: their exponents are the same.
"""

import functools

import numpy as np
import pytest

import lstmx


@functools.cache
def network(units, gain, seed=0):
    draws = np.random.default_rng(seed)
    kernel = gain * draws.standard_normal((units, units)) / np.sqrt(units)
    return draws, kernel


def autonomous(units, gain, steps, count):
    draws, kernel = network(units, gain)
    params = lstmx.SimpleRNNParams(np.zeros((1, units)), kernel.T.copy(), np.zeros(units))
    start = lstmx.SimpleRNNState(np.tanh(draws.standard_normal(units)))
    cell = lstmx.SimpleRNN(1, units)
    return lstmx.autonomous_spectrum(cell, params, None, start, steps, count, transient=steps // 5)


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "theory"), [(1.5, 0.065217), (2, 0.154724), (5, 0.532428)])
def test_the_greatest_exponent_of_a_wide_tanh_network_is_that_of_mean_field_theory(gain, theory):
    """V23: within 0.015 at N = 800, where the theory is that of infinitely many units."""
    spectrum = autonomous(800, gain, 1500, 1)
    assert abs(spectrum.exponents[0] - theory) < 0.015 + 3 * spectrum.standard_errors[0]


@pytest.mark.slow
def test_a_chaotic_network_has_the_counted_exponents_dimension_and_entropy():
    """V24: g = 2, N = 200: 25 positive exponents, H/N = 0.00952, D_KY/N = 0.2440, each to 10 %."""
    spectrum = autonomous(200, 2, 3000, 60)
    np.testing.assert_allclose((spectrum.exponents > 0).sum(), 25, rtol=0.1)
    np.testing.assert_allclose(spectrum.entropy_rate / 200, 0.00952, rtol=0.1)
    np.testing.assert_allclose(spectrum.kaplan_yorke / 200, 0.2440, rtol=0.1)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("gain", "noise", "expected"), [(1, 0.5, -0.2725), (1.5, 1, -0.1418), (3, 0.5, 0.2989), (0.5, 1, -1.0957)]
)
def test_the_greatest_exponent_of_a_driven_tanh_network(gain, noise, expected):
    """V26: N = 600, T = 1300."""
    units, (draws, kernel) = 600, network(600, gain)
    params = lstmx.SimpleRNNParams(np.eye(units), kernel.T.copy(), np.zeros(units))
    history = lstmx.record(lstmx.SimpleRNN(units, units), params, noise * draws.standard_normal((1300, units)))
    spectrum = lstmx.lyapunov_spectrum(history, 1, transient=300)
    assert abs(spectrum.exponents[0] - expected) < 0.005 + 3 * spectrum.standard_errors[0]
