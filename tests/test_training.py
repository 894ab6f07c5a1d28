"""The optax loop: deterministic, resumable, clipped, loud about divergence; and what a model counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstmx
from lstmx.training import adam

TASK = lstmx.tasks.adding_problem(length=8, batch=16, seed=0)
MODEL = lstmx.Model(lstmx.LSTM(2, 6), 1, "mean_squared_error")


def norm(tree):
    return np.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(tree)))


@pytest.mark.slow
def test_training_lowers_the_loss():
    training = lstmx.train(MODEL, MODEL.init(0), TASK.batch, adam(3e-2), 200, progress=False)
    assert training.step == 200
    assert training.losses.shape == training.gradient_norms.shape == (200,)
    assert training.losses[-20:].mean() < 0.5 * training.losses[:5].mean()


@pytest.mark.slow
def test_training_is_deterministic_and_resumes_to_the_bit():
    whole = lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=20, progress=False)
    half = lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=12, progress=False)
    rest = lstmx.train(MODEL, None, TASK.batch, steps=8, progress=False, resume=half)
    for left, right in zip(jax.tree.leaves(whole.params), jax.tree.leaves(rest.params), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(whole.losses, rest.losses)
    np.testing.assert_array_equal(whole.gradient_norms, rest.gradient_norms)


def test_what_is_handed_on_after_a_step_has_the_losses_so_far():
    handed = []
    half = lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=3, progress=False, after_step=handed.append)
    rest = lstmx.train(MODEL, None, TASK.batch, steps=2, progress=False, resume=half, after_step=handed.append)
    assert [training.step for training in handed] == [1, 2, 3, 4, 5]
    for training in handed:
        np.testing.assert_array_equal(training.losses, rest.losses[: training.step])
        np.testing.assert_array_equal(training.gradient_norms, rest.gradient_norms[: training.step])


@pytest.mark.slow
def test_loss_and_gradient_norm_are_those_of_the_batch():
    params = MODEL.init(1)
    training = lstmx.train(MODEL, params, TASK.batch, steps=1, progress=False)
    inputs, targets, _ = TASK.batch(0)

    def loss(params):
        predictions, _ = MODEL.predict(params, jnp.asarray(inputs))
        return jnp.mean((predictions[-1] - targets[-1]) ** 2)

    value, gradient = jax.value_and_grad(loss)(params)
    assert training.losses[0] == pytest.approx(float(value), rel=1e-6)
    assert training.gradient_norms[0] == pytest.approx(norm(gradient), rel=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
    params = MODEL.init(1)
    training = lstmx.train(MODEL, params, TASK.batch, optax.sgd(1.0), 1, clip=1e-3, progress=False)
    moved = jax.tree.map(lambda a, b: a - b, params, training.params)
    assert norm(moved) == pytest.approx(1e-3, rel=1e-2)


def test_cross_entropy_of_equal_logits_is_log_of_the_classes():
    task = lstmx.tasks.copy_memory(delay=3, batch=2)
    model = lstmx.Model(lstmx.GRU(10, 4), 9)
    params = jax.tree.map(jnp.zeros_like, model.init(0))
    loss, error = lstmx.evaluate(model, params, task.validation)
    assert loss == pytest.approx(np.log(9), rel=1e-6)
    assert np.isnan(error)


def test_mean_absolute_error_counts_weighted_steps_only():
    params = jax.tree.map(jnp.zeros_like, MODEL.init(0))
    loss, error = lstmx.evaluate(MODEL, params, TASK.validation)
    assert error == pytest.approx(np.abs(TASK.validation.targets[-1]).mean(), rel=1e-6)
    assert loss == pytest.approx((TASK.validation.targets[-1] ** 2).mean(), rel=1e-6)


def test_divergence_names_the_step_and_keeps_what_was_trained():
    def batches(step):
        batch = TASK.batch(step)
        return batch._replace(inputs=batch.inputs * np.float32("nan")) if step == 3 else batch

    with pytest.raises(lstmx.TrainingDiverged, match="the loss of step 3 is nan") as caught:
        lstmx.train(MODEL, MODEL.init(0), batches, steps=10, progress=False)
    kept = caught.value.training
    assert kept.step == 3
    np.testing.assert_array_equal(
        kept.losses, lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=3, progress=False).losses
    )


def test_interrupting_returns_what_was_trained():
    def batches(step):
        if step == 4:
            raise KeyboardInterrupt
        return TASK.batch(step)

    training = lstmx.train(MODEL, MODEL.init(0), batches, steps=10, progress=False)
    assert training.interrupted
    assert training.step == len(training.losses) == 4


@pytest.mark.slow
def test_float64_parameters_train_in_float64():
    training = lstmx.train(MODEL, MODEL.init(0, "float64"), TASK.batch, steps=2, progress=False)
    assert {leaf.dtype for leaf in jax.tree.leaves(training.params)} == {np.dtype("float64")}


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: lstmx.train(MODEL, MODEL.init(np.random.default_rng(0)), TASK.batch), TypeError, "NumPy arrays"),
        (lambda: lstmx.train(MODEL, MODEL.init(0).cell, TASK.batch), TypeError, "expected ModelParams"),
        (lambda: lstmx.train(MODEL, MODEL.init(0), TASK.batch, steps=-1), ValueError, "steps is -1"),
        (lambda: lstmx.train(MODEL, MODEL.init(0), TASK.batch, clip=0), ValueError, "clip is 0"),
        (lambda: lstmx.Model(lstmx.LSTM, 3), TypeError, "cell is the class LSTM, not a cell"),
        (lambda: lstmx.Model(lstmx.LSTM(2, 3), 3, "hinge"), ValueError, "loss is 'hinge'; expected one of"),
        (
            lambda: lstmx.train(MODEL, lstmx.Model(lstmx.LSTM(2, 6), 2).init(0), TASK.batch),
            ValueError,
            "params.readout.kernel has shape",
        ),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_model_counts_its_parameters():
    for cell in (
        lstmx.LSTM(2, 6),
        lstmx.GRU(2, 6),
        lstmx.LSTM.variant("FGR", 2, 6),
        lstmx.LSTM.variant("CIFG", 2, 6),
    ):
        model = lstmx.Model(cell, 3)
        assert model.count() == sum(leaf.size for leaf in jax.tree.leaves(model.init(0)))


def test_a_model_counts_two_operations_for_each_multiply_add():
    products = 2 * 16 + 16 * 16 + 16 * 3  # of W, U and the readout
    additions = 16 + 16 + 3  # of h U, b and the readout's bias
    assert lstmx.Model(lstmx.SimpleRNN(2, 16), 3).operations() == 2 * products + additions
    gated = lstmx.Model(lstmx.LSTM(2, 160), 3).operations() / lstmx.Model(lstmx.SimpleRNN(2, 160), 3).operations()
    assert gated == pytest.approx(4, rel=0.05)


def test_schemes_set_how_a_model_starts():
    schemes = [lstmx.schemes.identity(), lstmx.schemes.unit_forget_bias(3.0)]
    started, plain = MODEL.init(0, scheme=schemes), MODEL.init(0)
    np.testing.assert_array_equal(started.cell.recurrent_kernel[:, :6], np.eye(6))
    np.testing.assert_array_equal(started.cell.bias[6:12], 3.0)
    np.testing.assert_array_equal(started.cell.input_kernel, plain.cell.input_kernel)
    np.testing.assert_array_equal(started.readout.kernel, plain.readout.kernel)
    with pytest.raises(TypeError, match="scheme holds 'chrono'; expected schemes such as"):
        MODEL.init(0, scheme="chrono")


@pytest.mark.slow
def test_a_stack_is_trained_like_a_cell():
    stack = lstmx.Stack([lstmx.GRU(2, 6), lstmx.Bidirectional(lstmx.LSTM(6, 4))])
    task = lstmx.tasks.adding_problem(length=8, batch=8)
    model = lstmx.Model(stack, task.output_size, task.loss)
    params = model.init(0)
    assert model.count() == sum(leaf.size for leaf in jax.tree.leaves(params))
    parts = [
        lstmx.Model(cell, 1).operations() - (2 * cell.hidden_size + 1)
        for cell in (stack.cells[0], lstmx.LSTM(6, 4))
    ]
    assert model.operations() == parts[0] + 2 * parts[1] + 2 * 8 + 1
    training = lstmx.train(model, params, task.batch, steps=30, progress=False)
    assert training.losses[-5:].mean() < training.losses[:5].mean()
