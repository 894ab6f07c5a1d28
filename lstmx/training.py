"""A linear readout on a cell, and one small optax loop. Needs JAX and optax."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, dtype_of, is_jax, jax, jnp, leaves, map_tree, namespace, require
from lstmx.cells.base import Cell
from lstmx.checks import LARGEST, array, cells_of, finite_number, flag, one_of, parameters, positive
from lstmx.draws import Draws, Key, float_dtype
from lstmx.layers import Layers
from lstmx.observatory import Observatory
from lstmx.passes.run import run
from lstmx.passes.sharding import brought_back, spread
from lstmx.scaling import tree_norm
from lstmx.tasks import Batch

LOSSES = ("cross_entropy", "mean_squared_error")


class ReadoutParams(NamedTuple):
    """A linear map from outputs to predictions."""

    kernel: Array
    """[H, O]."""
    bias: Array
    """[O]."""


class ModelParams(NamedTuple):
    """Parameters of a cell and of its readout."""

    cell: Any
    """The cell's parameters."""
    readout: ReadoutParams
    """The readout's."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A cell and a linear readout of its outputs, with the loss that it is trained on.

    Attributes:
        cell: the recurrent cell, or layers of cells.
        output_size: classes or values O predicted at each step.
        loss: "cross_entropy" (targets are classes, nats) or "mean_squared_error".
    """

    cell: Cell | Layers
    output_size: int
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        cells_of("cell", self.cell)
        positive("output_size", self.output_size, 1, LARGEST)
        one_of("loss", self.loss, LOSSES)

    def init(self, key: Key, dtype: Any = "float32", scheme: Any = ()) -> ModelParams:
        """Fresh parameters: the cell's own, a Glorot-uniform readout kernel and a zero bias.

        Args:
            key: an int, a `numpy.random.Generator` or a JAX key, as for a cell.
            dtype: "float32" or "float64".
            scheme: how to change the cell's parameters, as for `cell.init`: a scheme such as
                `lstmx.schemes.chrono(1000)`, or several in a list.
        """
        draws = Draws(key)
        dtype = float_dtype(draws.xp, dtype)
        kernel = draws.glorot_uniform(self.cell.output_size, self.output_size, 1, dtype)
        bias = draws.xp.zeros(self.output_size, dtype=dtype)
        return ModelParams(self.cell.fresh(draws, dtype, scheme), ReadoutParams(kernel, bias))

    def predict(self, params: ModelParams, xs: Array, state: Any = None) -> tuple[Array, Any]:
        """Predictions [T, *batch, O] (logits for cross entropy) and the final state, as `lstmx.run`."""
        outputs, final = run(self.cell, params.cell, xs, state)
        return outputs @ params.readout.kernel + params.readout.bias, final

    def count(self) -> int:
        """Number of parameters."""
        return (self.cell.output_size + 1) * self.output_size + self.cell.parameter_count

    def operations(self) -> int:
        """Floating-point operations of one step of one sequence, readout included: two for each multiply-add.

        Of any cell: its step and the readout as XLA counts them before it optimises. A tanh or another
        transcendental function counts as none.
        """
        require("jax", "counting operations")
        return (2 * self.cell.output_size + 1) * self.output_size + _operations(self.cell)


def _operations(cell: Any) -> int:
    """Floating-point operations of one step of a cell, or of every cell of layers."""
    if isinstance(cell, Layers):
        return sum(map(_operations, cell.parts.values()))

    def array(shape: Any) -> Any:
        return None if shape is None else jax.ShapeDtypeStruct(shape, jnp.float32)

    if cell.closed_form:
        shapes, step = cell.parameter_shapes(), cell.step
        params = type(shapes)(*map(array, shapes))
    else:
        params, step = jax.eval_shape(cell.init, jax.random.key(0)), cell.next_state
    state = jax.eval_shape(cell.initial_state, params)
    x = jax.ShapeDtypeStruct((cell.input_size,), dtype_of(params))
    return round(jax.jit(step).lower(params, state, x).cost_analysis()["flops"])


class Training(NamedTuple):
    """What `train` returns; pass it back as `resume=` to go on.

    Attributes:
        params: trained so far.
        optimizer_state: of the optax optimizer.
        step: steps done in all; the next batch is `batches(step)`.
        losses: training loss of each step done so far, [step].
        gradient_norms: global L2 norm of the gradient before clipping, [step].
        interrupted: whether Ctrl-C ended it early.
    """

    params: ModelParams
    optimizer_state: Any
    step: int
    losses: np.ndarray
    gradient_norms: np.ndarray
    interrupted: bool = False

    def __repr__(self) -> str:
        loss = f", last loss {self.losses[-1]:.4g}" if len(self.losses) else ""
        return f"Training({self.step} steps{loss}{', interrupted' if self.interrupted else ''})"


class TrainingDiverged(FloatingPointError):
    """The loss became NaN or infinite; `training` holds everything up to the step before."""

    def __init__(self, message: str, training: Training):
        super().__init__(message)
        self.training = training


def train(
    model: Model,
    params: ModelParams,
    batches: Callable[[int], Batch],
    optimizer: Any = None,
    steps: int = 1000,
    *,
    clip: float = 1.0,
    progress: bool = True,
    resume: Training | None = None,
    after_step: Callable[[Training], None] | None = None,
    observe: Observatory | None = None,
) -> Training:
    """Minimise a model's loss, one batch a step.

    Deterministic: the same parameters and batches give the same numbers, and 10 steps then 10 resumed are the
    same as 20. Batches are converted to the parameters' dtype, and split over the devices of this process where
    these divide them, unless somebody has placed them, as `lstmx.shard_batch` does. Ctrl-C ends the training and
    returns what was trained, marked `interrupted`.

    Args:
        model: what to train.
        params: its parameters in JAX, as from `model.init(0)`; not looked at when resuming.
        batches: the batch of each step number, such as `task.batch`.
        optimizer: an optax optimizer; None for Adam with learning rate 3e-3.
        steps: steps to do now.
        clip: global L2 norm that gradients are clipped to before the optimizer; infinity for no clipping.
        progress: show a progress bar with the loss where standard error is a terminal or a notebook.
        resume: what an earlier call returned, with the same model and optimizer.
        after_step: called with the training so far after every step. Where that is kept as a checkpoint, call
            `observe.flush()` beside it, for an observatory on disk to be as far.
        observe: an observatory of the model's cell, which looks at it before the first step and every so many
            steps, with the gradient before clipping; the numbers are the same with and without.

    Returns:
        Parameters, optimizer state, and loss and gradient norm of every step.

    Raises:
        ImportError: JAX or optax is not installed.
        TypeError: an argument of the wrong kind, or parameters in NumPy.
        ValueError: a number out of range, or parameters or an observatory of another model.
        TrainingDiverged: the loss of a step is not finite; names the step and carries the training before it.
    """
    require("jax", "training")
    flag("progress", progress)
    tqdm = require("tqdm.auto" if progress else "tqdm", "the progress bar")
    steps = positive("steps", steps, 0, LARGEST)
    if not isinstance(clip, float) or clip != math.inf:
        finite_number("clip", clip, "a positive number, float('inf') for none", lambda x: x > 0)
    if not callable(batches):
        raise TypeError(f"batches is a {type(batches).__name__}; expected a function of the step, as task.batch")
    if after_step is not None and not callable(after_step):
        raise TypeError(
            f"after_step is a {type(after_step).__name__}; expected a function of the training, or None"
        )
    optimizer = adam() if optimizer is None else optimizer
    if not hasattr(optimizer, "init") or not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; expected one of optax, or None for Adam")
    if resume is not None and not isinstance(resume, Training):
        raise TypeError(f"resume is a {type(resume).__name__}; expected a Training, or None to start anew")
    _check_observatory(model, observe)
    if resume is None:
        _check_params(model, params)
        if observe is not None:
            observe(0, params.cell)
        resume = Training(params, optimizer.init(params), 0, np.empty(0), np.empty(0))
    _check_params(model, resume.params)

    training = resume
    update = _update(model, optimizer, float(clip))
    losses, norms = (np.append(kept, np.empty(steps)) for kept in (training.losses, training.gradient_norms))
    interrupted = is_split = False
    with tqdm.tqdm(
        total=steps, disable=None if progress else True, unit="step", desc=type(model.cell).__name__
    ) as bar:
        try:
            for step in range(training.step, training.step + steps):
                given = _to_jax(batches(step), training.params)
                batch, _, known, is_split = spread(given, whole=(training.params, training.optimizer_state))
                before = known[0]
                params, optimizer_state, loss, norm, gradient = update(*known, batch)
                loss = float(loss)
                if not np.isfinite(loss):
                    message = f"the loss of step {step} is {loss}; lower the learning rate or clip harder"
                    raise TrainingDiverged(message, training)
                done = len(training.losses)
                losses[done], norms[done] = loss, float(norm)
                training = Training(params, optimizer_state, step + 1, losses[: done + 1], norms[: done + 1])
                if observe is not None and observe.due(step + 1):
                    change = map_tree(lambda new, old: new - old, params.cell, before.cell)
                    observe(step + 1, params.cell, gradient=gradient.cell, update=change, training_loss=loss)
                if after_step is not None:
                    after_step(training)
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                bar.update()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            if observe is not None:
                observe.flush()
    if is_split:
        params, state = brought_back((training.params, training.optimizer_state))
        training = training._replace(params=params, optimizer_state=state)
    return training._replace(interrupted=interrupted)


def evaluate(model: Model, params: ModelParams, batch: Batch) -> tuple[float, float]:
    """Loss and mean absolute error of a model on a batch.

    Args:
        model: the model.
        params: its parameters in JAX.
        batch: sequences, targets and weights.

    Returns:
        The loss, and the weighted mean absolute error; NaN for cross entropy, where it has no meaning.
    """
    _check_params(model, params)
    if not isinstance(batch, tuple):
        raise TypeError(f"batch is a {type(batch).__name__}; expected a Batch, such as task.batch(0)")
    loss, error = _compiled_loss(model)(params, _to_jax(batch, params))
    return float(loss), float(error)


@functools.cache
def adam(learning_rate: float = 3e-3) -> Any:
    """Optax's Adam; the same object for the same rate, so that a training step is compiled once."""
    return require("optax", "training").adam(learning_rate)


def _check_params(model: Model, params: Any) -> None:
    require("jax", "training")
    if not isinstance(model, Model):
        raise TypeError(f"model is a {type(model).__name__}; expected a Model of a cell and a readout")
    if not isinstance(params, ModelParams):
        raise TypeError(f"params is a {type(params).__name__}; expected ModelParams, as from model.init(0)")
    parameters(model.cell, params.cell)
    shape = (model.cell.output_size, model.output_size)
    array("params.readout.kernel", params.readout.kernel)
    if tuple(params.readout.kernel.shape) != shape:
        raise ValueError(
            f"params.readout.kernel has shape {tuple(params.readout.kernel.shape)}; this model expects {shape}"
        )
    if not is_jax(namespace(*leaves(params.cell))):
        raise TypeError(
            "training differentiates with JAX, but params are NumPy arrays: model.init(0) makes JAX ones"
        )


def _check_observatory(model: Model, observe: Any) -> None:
    if observe is None:
        return
    if not isinstance(observe, Observatory):
        raise TypeError(f"observe is a {type(observe).__name__}; expected an Observatory of the model's cell")
    if observe.cell != model.cell or observe.convert is not None:
        other = observe.cell if observe.convert is None else f"{observe.cell} behind a converter"
        raise ValueError(f"observe is an observatory of {other}; this model trains {model.cell}")


def _to_jax(batch: Batch, params: ModelParams) -> Batch:
    dtype = params.readout.kernel.dtype
    if not isinstance(batch, (tuple, list)) or len(batch) != len(Batch._fields):
        raise TypeError(f"batch is a {type(batch).__name__}; expected a Batch: inputs, targets and weights")
    for name, part in zip(Batch._fields, batch, strict=True):
        array(f"batch.{name}", part)

    def convert(x: Any) -> Array:
        return jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else None)

    return Batch(*(convert(x) for x in batch))


def _loss(model: Model, params: ModelParams, batch: Batch) -> tuple[Array, Array]:
    """Weighted mean loss, and weighted mean absolute error (NaN for cross entropy)."""
    predictions, _ = model.predict(params, batch.inputs)
    weight = batch.weights / batch.weights.sum()
    if model.loss == "cross_entropy":
        log_p = jax.nn.log_softmax(predictions)
        chosen = jnp.take_along_axis(log_p, batch.targets[..., None], axis=-1)[..., 0]
        return -(weight * chosen).sum(), jnp.full((), jnp.nan, log_p.dtype)
    difference = predictions - batch.targets
    return (weight * (difference**2).mean(-1)).sum(), (weight * jnp.abs(difference).mean(-1)).sum()


@functools.lru_cache(maxsize=64)
def _update(model: Model, optimizer: Any, clip: float) -> Any:
    """The compiled training step of a model: one for each model, optimizer and clipping."""
    optax = require("optax", "training")

    def update(
        params: ModelParams, state: Any, batch: Batch
    ) -> tuple[ModelParams, Any, Array, Array, ModelParams]:
        (loss, _), gradient = jax.value_and_grad(functools.partial(_loss, model), has_aux=True)(params, batch)
        norm = tree_norm(gradient)
        scale = jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-30)).astype(norm.dtype)
        clipped = jax.tree.map(lambda g: g * scale, gradient)
        updates, state = optimizer.update(clipped, state, params)
        return optax.apply_updates(params, updates), state, loss, norm, gradient

    return jax.jit(update)


@functools.lru_cache(maxsize=64)
def _compiled_loss(model: Model) -> Any:
    return jax.jit(functools.partial(_loss, model))
