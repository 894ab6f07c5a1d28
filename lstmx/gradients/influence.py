"""`influence`: how much an output moves when an earlier input or state does, for pairs of steps.

`gate_kernel` is the weight that the gates, taken as given, put on earlier steps: another thing, with its own name.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lstmx.arrays import (
    Array,
    constant_tree,
    exp,
    fetched,
    gathered,
    is_traced,
    jit,
    log,
    map_tree,
    namespace,
    require,
    result,
)
from lstmx.checks import LARGEST, finite_history, finite_number, flag, one_of, positive, require_history, seeding
from lstmx.history import Controls, History
from lstmx.layers import StackHistory
from lstmx.linear import back_through, state_size, steps_of, walk_back
from lstmx.scaling import Scaled, log_hypot, log_norm, normalised, pack, scaled, unpack

_ALL_PAIRS = 512
_EXACT_UNITS = 512
_GROUP_ELEMENTS = 2**23  # of cotangents carried back at a time


@result(static=("of",))
class Influence:
    """Sensitivity of outputs to earlier inputs or states: Frobenius norms of ∂h_t/∂x_s or ∂h_t/∂s_s.

    Under JAX the norms can be differentiated with respect to parameters, inputs and initial state; estimates from
    probes with the signs held fixed. A log norm of −inf has no derivative, and 0 stands for it. Standard errors
    carry none.

    Attributes:
        log_norms: natural logs, [outputs, inputs, *batch]; −inf where s > t, and for an exact zero.
        outputs: the steps t, [outputs].
        inputs: the steps s, [inputs].
        standard_error: relative one of `norms` when estimated by probes, [outputs, inputs, *batch]; None for
            exact norms.
        of: "inputs" for ∂h_t/∂x_s, "state" for ∂h_t/∂s_s.
        counts: which steps of the pass count, booleans [T, *batch]; None where all do.
    """

    log_norms: Array
    outputs: Array
    inputs: Array
    standard_error: Array | None
    of: str = "inputs"
    counts: Array | None = None

    @property
    def norms(self) -> Array:
        """‖∂h_t/∂x_s‖, [outputs, inputs, *batch]."""
        return exp(self.log_norms)

    @property
    def lags(self) -> np.ndarray:
        """Steps from s to t, integers [outputs, inputs, *batch]: those that count; −1 for a pair without a lag.

        A pair has none where s > t, or where one of the two steps does not count.
        """
        outputs, inputs = fetched(self.outputs), fetched(self.inputs)
        if self.counts is None:
            lags = np.maximum(outputs[:, None] - inputs[None, :], -1)
            return np.broadcast_to(
                lags.reshape(*lags.shape, *(1,) * (self.log_norms.ndim - 2)), self.log_norms.shape
            )
        counts = fetched(self.counts)
        position = np.cumsum(counts, axis=0)
        lags = position[outputs][:, None] - position[inputs][None, :]
        return np.where(counts[outputs][:, None] & counts[inputs][None, :], np.maximum(lags, -1), -1)

    @property
    def lag_profile(self) -> np.ndarray:
        """Mean of `norms` over the pairs of each lag, [lags, *batch]; NaN for a lag without pairs."""
        return self._profile(0.0)

    def _profile(self, scale: Any) -> np.ndarray:
        """The lag profile of `norms` over e^scale, [*batch]."""
        norms, lags = exp(fetched(self.log_norms, np.float64) - scale), self.lags
        most, batch = int(lags.max(initial=0)) + 1, norms.shape[2:]
        cell = np.maximum(lags, 0) * math.prod(batch) + np.arange(math.prod(batch)).reshape(batch)
        known, size = lags >= 0, most * math.prod(batch)
        sums = np.bincount(cell[known], norms[known], size).reshape(most, *batch)
        pairs = np.bincount(cell[known], minlength=size).reshape(most, *batch)
        return np.where(pairs > 0, sums / np.maximum(pairs, 1), np.nan)

    def _relative_profile(self) -> np.ndarray:
        """The lag profile over the greatest norm, so that nothing overflows."""
        largest = np.max(fetched(self.log_norms, np.float64), axis=(0, 1))
        return self._profile(np.where(np.isneginf(largest), np.nan, largest))

    @property
    def mean_lag(self) -> np.ndarray:
        """Σ ℓ I(ℓ) / Σ I(ℓ) of the lag profile, in steps, [*batch]; NaN where it is zero."""
        profile = self._relative_profile()
        lags = np.arange(len(profile)).reshape(-1, *(1,) * (profile.ndim - 1))
        whole = np.nansum(profile, axis=0)
        return np.nansum(lags * profile, axis=0) / np.where(whole == 0, np.nan, whole)

    def __str__(self) -> str:
        """How far back the inputs, or states, are that outputs depend on."""
        what = "x_s" if self.of == "inputs" else "the state after s"
        lags = {"mean": self.mean_lag, "half": self.quantile(0.5), "95 %": self.quantile(0.95)}
        over = "" if self.log_norms.ndim == 2 else ", from the least to the greatest of the sequences"

        def told(values: np.ndarray) -> str:
            low, high = np.nanmin(values), np.nanmax(values)
            return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"

        known = {name: told(value) for name, value in lags.items() if not np.isnan(value).all()}
        if not known:
            return f"no output depends on {what} of any step"
        profile = self._relative_profile()
        lines = [
            f"how far h_t depends on {what}: {len(self.outputs):,} output steps on {len(self.inputs):,} earlier "
            f"ones{over}",
            f"  mean lag {known['mean']} steps: each lag counts by the mean norm of its derivatives",
            f"  half of the norms' sum lies within {known['half']} steps, 95 % within {known['95 %']} of "
            f"{len(profile) - 1:,} looked at",
        ]
        if self.standard_error is not None:
            error = np.nanmedian(fetched(self.standard_error))
            lines.append(
                f"  norms are estimates from probes, with a relative standard error of {error:.1%} (median)"
            )
        return "\n".join(lines)

    def quantile(self, fraction: float = 0.95) -> np.ndarray:
        """Least lag within which this fraction of the lag profile's sum lies, in steps, [*batch].

        Raises:
            ValueError: fraction is not between 0 and 1.
        """
        finite_number("fraction", fraction, "a number between 0 and 1", lambda x: 0 < x <= 1)
        cumulated = np.nancumsum(self._relative_profile(), axis=0)
        return np.argmax(cumulated >= fraction * cumulated[-1] * (1 - 1e-12), axis=0)

    def __repr__(self) -> str:
        kind = "exact" if self.standard_error is None else "by probes"
        return f"Influence({len(self.outputs)} output steps on {len(self.inputs)} earlier steps, {kind})"


def influence(
    history: History | StackHistory,
    outputs: int | Iterable[int] | None = None,
    inputs: int | Iterable[int] | None = None,
    probes: int | None = None,
    *,
    of: str = "inputs",
    seed: int = 0,
    progress: bool = False,
) -> Influence:
    """How strongly outputs depend on earlier inputs or states, every way through the gates included.

    One reverse pass carries H cotangents for each output step, or `probes` of them: for a random vector v of
    signs, E ‖vᵀ ∂h_t/∂x_s‖² is the squared Frobenius norm (Hutchinson's estimator).

    Args:
        history: the recorded pass.
        outputs: output steps t, integers; None for all steps of a history of at most 512, else the last one.
        inputs: earlier steps s to report on; None for all.
        probes: number of sign vectors, at least 2; None for the exact norms, for at most 512 units.
        of: "inputs" for ∂h_t/∂x_s, "state" for ∂h_t/∂s_s with s_s the joint state after step s.
        seed: of the probes.
        progress: show a progress bar over output steps; needs tqdm.

    Returns:
        The influence of each pair.

    Raises:
        TypeError: a step or the number of probes is no integer.
        ValueError: a step outside the history, fewer than 2 probes, or more than 2²⁴ numbers in them, more than
            512 units without probes, another word for `of`, or NaN or infinity in parameters, inputs or states.
    """
    require_history(history, joint=True)
    length, cell = len(history), history.cell
    one_of("of", of, ("inputs", "state"))
    chosen = output_steps(outputs, length)
    reported = _steps("inputs", inputs, length, list(range(length)))
    if probes is not None:
        positive("probes", probes, 2, LARGEST // cell.output_size)
    elif cell.output_size > _EXACT_UNITS:
        raise ValueError(
            f"exact influence takes at most {_EXACT_UNITS} units; pass probes=32 for {cell.output_size}"
        )
    seeding("seed", seed)
    flag("progress", progress)
    finite_history(history)

    vectors = np.eye(cell.output_size)
    if probes is not None:
        vectors = np.random.default_rng(seed).choice([-1.0, 1.0], size=(probes, cell.output_size))
    xp = namespace(history.inputs)
    vectors = xp.asarray(vectors, dtype=history.inputs.dtype)
    width = vectors.size * max(1, int(np.prod(history.batch)))
    size = max(1, _GROUP_ELEMENTS // width)
    logs, errors = [], []
    groups: Any = range(0, len(chosen), size)
    if progress:
        groups = require("tqdm.auto", "progress=True").tqdm(groups, unit="group", desc="influence")
    for group in groups:
        last = max(chosen[group : group + size])
        hot = np.arange(last + 1)[:, None] == np.array(chosen[group : group + size])
        log_norms, error = _influence(history[: last + 1], vectors, xp.asarray(hot), of=of)
        missing = [(0, length - last - 1)] + [(0, 0)] * (log_norms.ndim - 1)
        logs.append(xp.moveaxis(xp.pad(log_norms, missing, constant_values=-np.inf), 1, 0))
        errors.append(xp.moveaxis(xp.pad(error, missing), 1, 0))
    rows = np.array(reported)
    mean = 0.0 if probes is None else 0.5 * math.log(probes)  # probes are averaged, unit vectors added up
    found = Influence(
        log_norms=xp.concat(logs)[:, rows] - mean,
        outputs=np.array(chosen),
        inputs=rows,
        standard_error=None if probes is None else xp.concat(errors)[:, rows],
        of=of,
        counts=history.counts,
    )
    return gathered(found)


@jit(static=("of",))
def _influence(history: Any, vectors: Array, hot: Array, of: str) -> tuple[Array, Array]:
    """Log norms and relative standard errors, [T, outputs, *batch], of outputs where `hot` [T, outputs] is."""
    xp, batch = namespace(history.inputs, vectors), history.batch
    middle = (1,) * len(batch)
    lead = (hot.shape[1], vectors.shape[0], *batch)
    unit = xp.broadcast_to(xp.reshape(vectors, (1, vectors.shape[0], *middle, -1)), (*lead, vectors.shape[1]))
    zero = xp.zeros((*lead, state_size(history)), dtype=vectors.dtype)
    first = steps_of(history[:1])[0]
    same = scaled(first.inject(unit)) if first.output_is_linear else None

    def step(packed: Array, at: Any, hot: Array) -> tuple[Array, Any]:
        here = scaled(at.inject(unit)) if same is None else same
        cotangent = normalised(unpack(packed))
        starts = xp.reshape(hot, (-1, 1, *middle))  # until its own step the cotangent of an output is zero
        if at.held is not None:
            starts = starts & ~at.held[..., 0]
        cotangent = Scaled(
            xp.where(starts[..., None], here.value, cotangent.value),
            xp.where(starts, here.exponent, cotangent.exponent),
        )
        before, drive = at.pull(cotangent.value)
        reached = cotangent if of == "state" else cotangent._replace(value=at.input_vjp(drive))
        return pack(cotangent._replace(value=before)), _over_vectors(log_norm(reached))

    def chunk(packed: Array, part: Any, hot: Array) -> tuple[Array, Any]:
        return back_through(part, step, packed, hot)[:2]

    return walk_back(history, chunk, pack(scaled(zero)), hot)[1]


def gate_kernel(history: History, outputs: int | Iterable[int] | None = None) -> np.ndarray:
    """The weight that the gates, taken as given, put on the candidate of each earlier step.

    Unrolling c_t = f_t ∘ c_{t-1} + i_t ∘ g_t gives c_t = Σ_s w_{t,s} ∘ g_s + (Π f) ∘ c_0 with
    w_{t,s} = i_s ∘ Π_{r=s+1..t} f_r. The kernel is ‖o_t ∘ w_{t,s}‖₁, normalised over s. It reads the cell state
    as a weighted sum, and says where the content of c_t came from. It is not the sensitivity of `influence`:
    an input also acts through the gates of later steps, which are held fixed here, and a candidate may be zero.
    A MinLSTM and a MinGRU have h in the place of c, and no o.

    Args:
        history: the recorded pass of a cell with an input gate.
        outputs: steps t, integers; None for all steps of a history of at most 512, else the last one.

    Returns:
        NumPy float64, [outputs, T, *batch]; sums to 1 over s ≤ t, zero for s > t, for steps that do not count and
        before a sequence's start.

    Raises:
        TypeError: history is none, a step is no integer, or the history is inside a JAX transformation.
        ValueError: the cell has no input gate, or a step is outside the history.
    """
    require_history(history)
    chosen = output_steps(outputs, len(history))
    kernel = np.zeros((len(chosen), len(history), *history.batch))
    for row, (logs, _) in zip(kernel, log_weights(history, chosen, shown=True), strict=True):
        greatest = logs.max(axis=(0, -1), keepdims=True)
        weight = np.exp(logs - np.where(np.isneginf(greatest), 0, greatest)).sum(axis=-1)
        whole = weight.sum(axis=0)
        row[:] = np.divide(weight, whole, out=np.zeros_like(weight), where=whole > 0)
    return kernel


def output_steps(outputs: Any, length: int) -> list[int]:
    """The output steps that are asked for: all of a short pass, the last of a long one where none are named."""
    return _steps("outputs", outputs, length, list(range(length)) if length <= _ALL_PAIRS else [length - 1])


def log_weights(
    history: History, outputs: list[int], shown: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ln of the weight with which a state holds what earlier steps took in, i_s ∘ Π_{r=s+1..t} f_r, by unit.

    Args:
        history: the recorded pass.
        outputs: the steps t.
        shown: times the output gate, where there is one.

    Yields:
        For each output step [T, *batch, H], −inf where nothing is held; and of the initial state, [*batch, H].

    Raises:
        TypeError: the history is inside a JAX transformation.
        ValueError: the cell has no input gate, or there is NaN or infinity in parameters, inputs or states.
    """
    cell = history.cell
    if "input_gate" not in cell.gate_type._fields:
        raise ValueError(
            f"{cell} has no input gate of its own; expected a cell with one, such as an LSTM or a MinLSTM"
        )
    if is_traced(history):
        raise TypeError("history is inside a JAX transformation; its weights are summed in NumPy float64 outside")
    finite_history(history)
    exact = map_tree(lambda x: x if x.dtype == bool else fetched(x, np.float64), history.to_numpy())
    log_f = exact.log_retention
    log_i, log_o = np.zeros_like(log_f), np.zeros_like(log_f)
    if "input_gate" in cell.gate_names:  # else it is left out, and 1
        log_i = exact.log_gate("input_gate")
    if shown and "output_gate" in cell.gate_names:
        log_o = exact.log_gate("output_gate")
    kept = cell.kept((exact.controls or Controls()).kept)
    if kept is not None:  # what is kept of the old state takes nothing in
        log_i = log_i + log(1 - fetched(getattr(kept, "cell", kept.hidden)))
    log_i = exact.where_counted(log_i, -math.inf)
    # The first factor multiplies the initial state alone, and is −inf where that is an SLSTM's empty one.
    first = log_f[0].copy()
    log_f[0] = 0
    starts = np.isneginf(log_f)
    reach, sequence = np.cumsum(np.where(starts, 0, log_f), axis=0), np.cumsum(starts, axis=0)
    for t in outputs:
        found = np.full(log_f.shape, -math.inf)
        weight = log_o[t] + log_i[: t + 1] + reach[t] - reach[: t + 1]
        found[: t + 1] = np.where(sequence[: t + 1] == sequence[t], weight, -math.inf)  # not through a closed gate
        yield found, np.where(sequence[t] == 0, log_o[t] + reach[t] + first, -math.inf)


def _over_vectors(logs: Array) -> tuple[Array, Array]:
    """From log norms of vᵀM for each v, [outputs, vectors, *batch], the log of the root of the sum of squares.

    Also the relative standard error of the root of their mean, as if the v were independent draws; it carries no
    derivative.
    """
    xp = namespace(logs)
    norm, count = log_hypot(logs, axis=1), logs.shape[1]
    logs, known = constant_tree((logs, norm))
    empty = xp.isneginf(known)
    share = xp.exp(2 * (logs - xp.where(empty, xp.zeros_like(known), known)[:, None]))
    spread = xp.sum((share - 1 / count) ** 2, axis=1) * (count / max(1, count - 1))
    return norm, xp.where(empty, xp.zeros_like(known), 0.5 * xp.sqrt(spread))


def _steps(name: str, steps: Any, length: int, default: list[int]) -> list[int]:
    """Steps as integers within a history, else an error that names the one that is not."""
    if steps is None:
        return default
    try:
        found = list(steps) if isinstance(steps, Iterable) else [steps]
    except TypeError as error:  # of a history, or an array without axes
        raise TypeError(f"{name} is a {type(steps).__name__}; expected integer steps") from error
    made = []
    for step in found:
        try:
            made.append(operator.index(None if isinstance(step, (bool, np.bool_)) else step))  # type: ignore  # None has none
        except TypeError as error:
            raise TypeError(f"{name} holds {step!r}; expected integer steps") from error
        if not 0 <= made[-1] < length:
            raise ValueError(f"{name} holds step {made[-1]}; expected 0 to {length - 1}")
    if not found:
        raise ValueError(f"{name} is empty; expected at least one step")
    return made
