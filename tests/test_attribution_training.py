"""Attribution of trained networks, on tasks of which it is known what the answer depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstmx

pytestmark = [
    pytest.mark.slow,  # networks to train
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def _as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        yield


def test_the_marked_steps_of_the_adding_problem_carry_the_answer():
    """T = 100, trained to 1 % of the error of a constant, 1/6."""
    task = lstmx.tasks.adding_problem(100)
    cell, state = trained(task, 0.01 / 6, 0.01)
    xs = jnp.asarray(task.validation.inputs)[:, :20]
    history = lstmx.record(cell, state.params.cell, xs)
    marks = np.asarray(xs[..., 1]) > 0.5
    for method in ("integrated_gradients", "lrp"):
        found = lstmx.attribute(history, (state.params.readout, 0), method)
        steps = np.abs(np.asarray(found.steps))
        shares = (steps * marks).sum(0) / steps.sum(0)
        print(method, np.sort(shares))
        assert np.median(shares) > 0.95


def trained(task, enough, rate):
    """An LSTM with a readout, trained until the loss is small enough."""
    cell = lstmx.LSTM(task.input_size, 64)
    model = lstmx.Model(cell, task.output_size, task.loss)
    params, state = model.init(0), None
    for _ in range(12):
        state = lstmx.train(model, params, task.batches(0), optax.adam(rate), 500, progress=False, resume=state)
        print(state.step, np.mean(state.losses[-50:]))
        if np.mean(state.losses[-50:]) < enough:
            return cell, state
    raise AssertionError(f"a loss of {np.mean(state.losses[-50:]):.3g} after {state.step} steps")
