"""What importing lstmx does and does not do; each test runs in a process of its own."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import lstmx


def python(code):
    """Run code in a fresh interpreter where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def succeeds(code):
    done = python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NUMPY_ALONE = """
    import sys
    for absent in ("jax", "jaxlib", "optax", "chex", "matplotlib", "tqdm"):
        sys.modules[absent] = None
    import numpy as np
    import lstmx
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_numpy_alone_is_enough_and_gives_the_same_numbers(name):
    code = f"""
    cell = lstmx.{name}(3, 4)
    xs = np.random.default_rng(1).normal(size=(20, 2, 3))
    for key in (0, np.random.default_rng(0)):
        params = cell.init(key, dtype="float64")
        assert all(type(array) is np.ndarray for array in params)
    outputs, final = lstmx.run(cell, params, xs)
    for keep in ("all", "states"):
        history = lstmx.record(cell, params, xs, keep=keep)
        np.testing.assert_array_equal(history.hidden_state, outputs)
        gradients = lstmx.backward(history[5:], np.ones((15, 2, 4)))
        assert np.isfinite(gradients.inputs).all() and gradients.inputs.any()
        if cell.gate_blocks:
            assert np.isfinite(lstmx.gate_statistics(history).timescale).all()
    assert not any(sys.modules.get(name) for name in ("jax", "jaxlib"))
    print(repr(float(np.sum(gradients.parameters.recurrent_kernel ** 2))))
    """
    cell = getattr(lstmx, name)(3, 4)
    params = cell.init(np.random.default_rng(0), dtype="float64")
    history = lstmx.record(cell, params, np.random.default_rng(1).normal(size=(20, 2, 3)))
    beside = lstmx.backward(history[5:], np.ones((15, 2, 4))).parameters.recurrent_kernel
    assert float(succeeds(NUMPY_ALONE + code)) == pytest.approx(np.sum(beside**2), rel=1e-12)


def test_the_absence_of_jax_is_real_in_these_tests():
    done = python(NUMPY_ALONE + "    import jax")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr


@pytest.mark.slow
def test_without_jax_an_integer_seeds_numpy():
    code = """
    cell = lstmx.LSTM(3, 4)
    for one, other in zip(cell.init(7), cell.init(np.random.default_rng(7)), strict=True):
        np.testing.assert_array_equal(one, other)
    try:
        cell.init("key")
    except TypeError as error:
        print(error)
    """
    assert "expected an int, a numpy.random.Generator or a JAX key" in succeeds(NUMPY_ALONE + code)


@pytest.mark.slow
def test_importing_draws_and_trains_nothing():
    code = """
    import sys, lstmx
    print([name for name in ("matplotlib", "optax", "chex", "tqdm", "torch") if name in sys.modules])
    """
    assert succeeds(code) == "[]"


@pytest.mark.slow
def test_importing_starts_no_device():
    code = """
    import lstmx, jax
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    print(jax.device_count())
    """
    assert succeeds(code) == "2"


@pytest.mark.slow
def test_importing_changes_no_setting():
    code = """
    import jax, numpy, logging, warnings
    def settings():
        return dict(jax.config.values), numpy.geterr(), logging.root.level, list(warnings.filters)
    before = settings()
    import lstmx
    assert settings() == before
    """
    succeeds(code)
