"""Attribution of trained networks, on tasks of which it is known what the answer depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstmx
from lstmx.tasks import Batch, Task

pytestmark = [
    pytest.mark.slow,  # networks to train
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True, scope="module")
def _as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        yield


def trained(task, enough):
    """An LSTM with a readout, trained until the loss is small enough."""
    cell = lstmx.LSTM(task.input_size, 64)
    model = lstmx.Model(cell, task.output_size, task.loss)
    params, state = model.init(0), None
    for _ in range(8):
        optimizer = optax.adam(0.01 if state is None or state.step < 1500 else 0.002)
        state = lstmx.train(model, params, task.batches(0), optimizer, 500, progress=False, resume=state)
        if np.mean(state.losses[-50:]) < enough:
            return cell, state.params
    raise AssertionError(f"a loss of {np.mean(state.losses[-50:]):.3g} after {state.step} steps")


@pytest.fixture(scope="module")
def adding():
    """The adding problem at T = 100, trained to 1 % of the error of a constant: a pass, its readout, the marks."""
    task = lstmx.tasks.adding_problem(100)
    cell, params = trained(task, 0.01 * task.baseline)
    xs = jnp.asarray(task.validation.inputs)[:, :40]
    return lstmx.record(cell, params.cell, xs), params.readout, np.asarray(xs[..., 1]) > 0.5


# Where nothing is added: values as they are in the mean, no marker.
NOTHING = np.array([0.5, 0.0], "float32")


def test_the_marked_steps_of_the_adding_problem_carry_the_answer(adding):
    history, readout, marks = adding
    found = lstmx.attribute(history, (readout, 0), baseline=jnp.asarray(NOTHING))
    assert np.asarray(found.relative_defect).max() < 1e-4  # in float32
    steps, change = np.asarray(found.steps), np.asarray(found.value - found.baseline_value)
    shares = (steps * marks).sum(0) / change
    assert 0.95 < np.median(shares) < 1.05
    top = np.sort(np.asarray(found.top(2)), axis=0)
    expected = np.argsort(~marks, axis=0, kind="stable")[:2]
    assert (top == expected).all(axis=0).mean() > 0.95
    values = np.asarray(history.inputs[..., 0])[marks.T.nonzero()[1], marks.T.nonzero()[0]]
    told = steps[marks.T.nonzero()[1], marks.T.nonzero()[0]]
    assert np.corrcoef(values, told)[0, 1] > 0.95  # a step brings what stands there
    curves = lstmx.faithfulness(found)
    drop = curves.shuffled_area - curves.deletion_area
    assert (drop > 0).mean() > 0.7


def test_contributions_are_what_interventions_on_the_same_steps_change(adding):
    history, readout, marks = adding
    found = lstmx.attribute(history, (readout, 0), baseline=jnp.asarray(NOTHING))
    effects, told = [], []
    for b in range(20):
        one = history.sequence(b)
        steps = np.concatenate([np.flatnonzero(marks[:, b]), [0, 33, 66, 99]])
        xs = np.repeat(np.asarray(one.inputs)[:, None], len(steps), axis=1)
        xs[steps, np.arange(len(steps))] = NOTHING
        start = jax.tree.map(lambda x: jnp.broadcast_to(x, (6, *x.shape)), one.initial)  # so many steps
        outputs, _ = lstmx.run(one.cell, one.params, jnp.asarray(xs), start)
        without = outputs[-1] @ readout.kernel[:, 0] + readout.bias[0]
        effects.append(np.asarray(found.value[b] - without))
        told.append(np.asarray(found.steps)[steps, b])
    assert np.corrcoef(np.concatenate(effects), np.concatenate(told))[0, 1] > 0.9


def copying(symbols=3, delay=10):
    """Repeat a few of four symbols after a delay."""

    def draw(rng, count):
        said = rng.integers(1, 5, (symbols, count))
        classes = np.zeros((2 * symbols + delay, count), np.int32)
        targets, weights = classes.copy(), np.zeros(classes.shape, np.float32)
        classes[:symbols], classes[-symbols - 1] = said, 5
        targets[-symbols:], weights[-symbols:] = said, 1
        return Batch(np.eye(6, dtype=np.float32)[classes], targets, weights)

    def batch(step):
        return draw(np.random.default_rng([1, step]), 32)

    return Task("copying", 6, 5, "cross_entropy", batch, draw(np.random.default_rng(9), 64), np.log(4), "guessing")


def test_a_copied_symbol_is_what_its_copy_is_made_of():
    task = copying()
    cell, params = trained(task, 0.01 * task.baseline)
    xs, symbols = jnp.asarray(task.validation.inputs), 3
    history = lstmx.record(cell, params.cell, xs)
    kernel = np.asarray(params.readout.kernel)
    greatest = []
    for k in range(symbols):
        at = len(xs) - symbols + k
        said = np.asarray(task.validation.targets)[at]
        weights = np.zeros(history.outputs.shape, "float32")
        weights[at] = kernel.T[said] - kernel[:, 1:5].mean(axis=1)  # of the right symbol over the mean of all
        found = lstmx.attribute(history, jnp.asarray(weights), baseline=xs.mean(axis=1))
        steps, change = np.asarray(found.steps), np.asarray(found.value - found.baseline_value)
        greatest.append(np.argmax(steps, axis=0) == k)
        carried = steps[:symbols].sum(axis=0)
        assert 0.95 < np.median(carried / change) < 1.05
        assert 0.95 < carried.sum() / change.sum() < 1.05  # of all sequences; single ones go from 0.9 to 1.15
    assert np.mean(greatest) > 0.7  # of three, one by chance
