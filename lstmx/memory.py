"""`memory_report`: how long a network remembers, by every notion of it, on one axis with its units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, fetched, is_traced, jit, map_tree, namespace, result
from lstmx.checks import LARGEST, finite_number, flag, positive, require_history, unreset
from lstmx.dynamics import LyapunovSpectrum, lyapunov_spectrum
from lstmx.gradients import GradientFlow, Influence, LayeredFlow, gradient_flow, influence
from lstmx.gradients.flow import Loss, loss_cotangent
from lstmx.history import History
from lstmx.layers import StackHistory
from lstmx.linear import back_through, state_size
from lstmx.scaling import tree_norm
from lstmx.statistics import GateStatistics, gate_statistics

_PROBES = 32  # of the influence, where there are more units
_STEPS = 20_000  # last ones, from which the linear capacity is found
_PER_UNIT = 4  # steps that the fit of the linear capacity takes at least
_RIDGE = 1e-10  # relative to the states' variance
_CONSTANT = 1e-12  # share of an input's mean square below which its variance is rounding
_FAR = 3.0  # ratio of two notions from which a report remarks on them


class Notion(NamedTuple):
    """One notion of how long a network remembers.

    Attributes:
        name: what it is called.
        value: median over the sequences of a batch; infinite where nothing is forgotten within reach, NaN if
            unknown.
        unit: of the value.
        definition: what it is, in a sentence.
    """

    name: str
    value: float
    unit: str
    definition: str


@result(static=("notions", "lags", "features"))
class MemoryReport:
    """How long a network remembers on a recorded pass, by several notions. `print` shows the table.

    Attributes:
        notions: each with its value, unit and definition in a sentence.
        lags: the longest lag that influence, truncation and capacity looked at, in steps.
        truncation_bias: relative error of ∂L/∂(parameters), summed over the batch, by backpropagation truncated to
            K = 1 … `lags` steps, [lags].
        capacity: linear memory capacity at lags 0 … `lags` − 1, summed over input features, [lags]; NaN for a pass
            too short for it.
        flow: the gradient flow of the loss; of a stack a `LayeredFlow`.
        spectrum: the leading Lyapunov exponent.
        influence: of the inputs on the last output, over the last `lags` steps.
        features: D, the input features that `capacity` is summed over.
    """

    notions: tuple[Notion, ...]
    lags: int
    truncation_bias: np.ndarray
    capacity: np.ndarray
    flow: GradientFlow | LayeredFlow
    spectrum: LyapunovSpectrum
    influence: Influence
    features: int

    def __getitem__(self, name: str) -> Notion:
        """The notion of this name.

        Raises:
            KeyError: there is none.
        """
        for notion in self.notions:
            if notion.name == name:
                return notion
        raise KeyError(f"no notion {name!r}; this report has {[n.name for n in self.notions]}")

    @property
    def remark(self) -> str:
        """What it means that the notions disagree, where two are apart by more than a factor of three; else ''."""
        steps = {n.name: n.value for n in self.notions if n.unit == "steps" and 0 < n.value < math.inf}
        if not steps:
            return "No notion is finite: within reach of this pass, nothing is forgotten."
        least, most = min(steps, key=lambda n: steps[n]), max(steps, key=lambda n: steps[n])
        if steps[most] <= _FAR * steps[least]:
            return ""
        lines = [
            f"They disagree by a factor of {steps[most] / steps[least]:.3g}, from {least} ({steps[least]:.3g} "
            f"steps) to {most} ({steps[most]:.3g} steps): they answer different questions."
        ]
        slowest, whole = steps.get("highway, slowest unit"), steps.get("Lyapunov time")
        if slowest and whole and whole > _FAR * slowest:
            lines.append(
                "The joint state remembers longer than the retention gates of any unit alone: the rest of the way "
                "leads through the hidden state."
            )
        if slowest and whole and slowest > _FAR * whole:
            lines.append(
                "The retention gates alone promise more than the joint state keeps: the ways through the hidden "
                "state oppose it."
            )
        own, arithmetic = steps.get("highway, geometric"), steps.get("highway, arithmetic")
        if own and arithmetic and arithmetic > _FAR * own:
            lines.append(
                "The arithmetic time scale is the longer one because gates that close now and then erase the "
                "state, which a mean of gates hides."
            )
        return " ".join(lines)

    def __str__(self) -> str:
        width = max(len(notion.name) for notion in self.notions)
        lines = [f"how long the network remembers (lags up to {self.lags} steps looked at)"]
        for notion in self.notions:
            known = not math.isnan(notion.value)
            shown = "unknown" if not known else "∞" if math.isinf(notion.value) else f"{notion.value:.4g}"
            unit = notion.unit if known else ""
            lines.append(f"  {notion.name:<{width}}  {shown:>8} {unit:<6}  {notion.definition}")
        return "\n".join([*lines, *([self.remark] if self.remark else [])])

    def __repr__(self) -> str:
        return f"MemoryReport({len(self.notions)} notions, lags up to {self.lags})"


def memory_report(
    history: History | StackHistory,
    loss: Loss = "last",
    *,
    lags: int = 200,
    fraction: float = 0.01,
    bias: float = 0.05,
    progress: bool = False,
) -> MemoryReport:
    """Every notion of how long the network remembers on this pass, side by side.

    Memory is measured from the end of the pass: the loss may read the last output only, since a loss at many steps
    adds up gradients of different ages. For another moment pass `history[:t + 1]`.

    Args:
        history: the recorded pass.
        loss: as for `gradient_flow`, of the last output: "last" for its sum; or the direct part of ∂L/∂h_t,
            [T, *batch, H], zero before the last step; or under JAX a function of the outputs.
        lags: how far influence, truncation and linear memory look back, in steps; at most T are.
        fraction: of its value at the last step that a gradient has at its horizon.
        bias: relative error that truncated backpropagation may have.
        progress: show progress bars; needs tqdm.

    Returns:
        The report; `print` shows a table, `lstmx.plot.memory` draws it.

    Raises:
        TypeError: an argument is of the wrong kind or dtype, or the history is inside a JAX transformation.
        ValueError: the loss reads outputs before the last step, a number is out of range, or NaN or infinity in
            parameters, inputs, states or loss.

    References:
        Aicher, Foti & Fox, "Adaptively truncating backpropagation through time to control gradient bias", UAI
        2019.
        Jaeger, "Short term memory in echo state networks", GMD Report 152, 2002.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(1, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.random.default_rng(1).normal(size=(600, 1)).astype("float32")
        >>> report = lstmx.memory_report(lstmx.record(cell, params, xs))
        >>> 2 < report["highway, geometric"].value < 6
        True
    """
    positive("lags", lags, 1, LARGEST)
    for name, value in (("fraction", fraction), ("bias", bias)):
        finite_number(name, value, "a number between 0 and 1", lambda x: 0 < x < 1)
    flag("progress", progress)
    require_history(history, joint=True)
    if is_traced(history):
        raise TypeError("memory_report sums up in NumPy and cannot run inside a JAX transformation")
    unreset(history, "memory_report")
    history = history.with_gaps(first=True)
    flow = gradient_flow(history, loss, outputs="norms", progress=progress)
    direct = _at_the_end(history, loss)

    lags = min(int(lags), len(history))
    spectrum = lyapunov_spectrum(history, 1, progress=progress)
    tail = history[len(history) - lags :]
    exact = history.cell.output_size <= _PROBES
    reach = influence(tail, len(tail) - 1, probes=None if exact else _PROBES)
    truncation = _truncation_bias(tail, direct, flow.parameters)
    capacity = _linear_capacity(history, lags)
    found = tuple(_notions(history, flow, spectrum, reach, truncation, capacity, fraction, bias))
    return MemoryReport(found, lags, truncation, capacity, flow, spectrum, reach, history.cell.input_size)


def _at_the_end(history: History | StackHistory, loss: Any) -> Array:
    """∂L/∂h_T at fixed other outputs, [*batch, H], for a loss that reads nothing else."""
    direct = loss_cotangent(history, loss)
    xp = namespace(history.inputs)
    if direct is None:
        return xp.ones_like(history.outputs[-1])
    earlier = fetched(xp.any(direct[:-1] != 0, axis=tuple(range(1, direct.ndim))))
    if earlier.any():
        raise ValueError(
            f"loss reads the output of step {int(np.argmax(earlier))}; memory is measured from the last step "
            f"alone, {len(history) - 1}. For an earlier one pass history[:t + 1]"
        )
    return direct[-1]


def _notions(
    history: History | StackHistory,
    flow: GradientFlow | LayeredFlow,
    spectrum: LyapunovSpectrum,
    reach: Influence,
    truncation: np.ndarray,
    capacity: np.ndarray,
    fraction: float,
    bias: float,
) -> Iterator[Notion]:
    parts = (
        {"": history} if isinstance(history, History) else {f", {n}": p for n, (p, _) in history.cells().items()}
    )
    for place, part in parts.items():
        if part.cell.retention_gate is None:
            continue
        statistics: GateStatistics = gate_statistics(part)
        word = part.cell.retention_gate.replace("_", " ")
        geometric, arithmetic = statistics.timescale, statistics.timescale_arithmetic
        alone = "decay by e along the state alone"
        for name, value, definition in (
            ("geometric", _median(geometric), f"−1/⟨ln f⟩ of the {word}, median unit: {alone}"),
            (
                "slowest unit",
                float(np.max(fetched(geometric))),
                f"−1/⟨ln f⟩ of the {word}, greatest of all units",
            ),
            ("arithmetic", _median(arithmetic), f"−1/ln⟨f⟩ of the {word}, median unit: a published estimator"),
        ):
            yield Notion(f"highway, {name}{place}", value, "steps", definition)
    yield Notion("Lyapunov time", spectrum.timescale, "steps", "−1/λ₁: decay by e of a change of the joint state")
    yield Notion("gradient half-life", _median(flow.half_life), "steps", "halving of the fitted gradient norm")
    yield Notion(
        "gradient horizon",
        _median(flow.horizon(fraction)),
        "steps",
        f"steps back at which the gradient's norm is first at most {fraction:.3g} of its value at the last step",
    )
    yield Notion(
        "influence lag",
        _median(reach.quantile(0.95)),
        "steps",
        f"lag within which 95 % of the influence of the last {len(truncation)} inputs on the last output lies",
    )
    beyond = np.flatnonzero(~(truncation <= bias))  # the last that is tells from where on all are within
    length = 1 if not len(beyond) else int(beyond[-1]) + 2
    yield Notion(
        "truncation length",
        float(length) if length <= len(truncation) else math.inf,
        "steps",
        f"shortest truncation from which backpropagation gives the gradient to within {bias:.3g} of its norm",
    )
    yield Notion(
        "linear memory",
        float(capacity.sum()) / history.cell.input_size,
        "steps",
        "past inputs that a linear readout of h recovers: Σ over lags of R² on held-out steps, per input feature"
        + (f"; {_too_short(history, len(capacity))}" if np.isnan(capacity).any() else ""),
    )


def _median(values: Any) -> float:
    return float(np.median(fetched(values, np.float64)))


def _truncation_bias(tail: Any, direct: Array, gradient: Any) -> np.ndarray:
    """‖g_K − g‖ / ‖g‖ with g the gradient of all parameters and g_K what K steps back give of it, [steps]."""
    left, whole = _left_out(tail, direct, gradient)
    with np.errstate(invalid="ignore", divide="ignore"):  # of a gradient of exactly 0: NaN
        return fetched(left, np.float64)[::-1] / float(whole)


@jit()
def _left_out(history: Any, direct: Array, gradient: Any) -> tuple[Array, Array]:
    """Norm of the gradient less the parts of each step and all later ones, [T]; and norm of the gradient."""
    xp = namespace(history.inputs)

    def step(carry: Any, at: Any, direct: Array) -> tuple[Any, Array]:
        cotangent, left = carry
        cotangent, drive = at.pull(cotangent + at.inject(direct))
        left = map_tree(lambda a, b: a - b, left, at.parameter_vjp(drive))
        return (cotangent, left), tree_norm(left)

    zero = xp.zeros((*history.batch, state_size(history)), dtype=direct.dtype)
    outputs = xp.concat([xp.zeros_like(history.outputs[:-1]), direct[None]])
    gradient = map_tree(xp.asarray, gradient)
    return back_through(history, step, (zero, gradient), outputs)[1], tree_norm(gradient)


def _too_short(history: History | StackHistory, lags: int) -> str:
    """Why a pass has no linear capacity, in words."""
    found = np.maximum(fetched(history.lengths) - lags + 1, 0).sum()
    return (
        f"unknown: the pass is too short, for the fit needs {2 * _PER_UNIT * history.cell.output_size} steps that "
        f"follow {lags - 1} others in their sequence, of which there are {found}; fewer lags ask for fewer steps"
    )


def _linear_capacity(history: History | StackHistory, lags: int) -> np.ndarray:
    """R² of x_{t−k} from h_t by ridge regression, summed over features, for k = 0 …, [lags].

    Fitted on the first half of the steps of every sequence and judged on the second, so that what a fit finds in
    noise counts as nothing. NaN where there are too few steps.
    """
    part = history[max(0, len(history) - _STEPS) :]
    states, inputs = (fetched(x, np.float64) for x in (part.outputs, part.inputs))
    states, inputs = (x.reshape(len(x), -1, x.shape[-1]) for x in (states, inputs))
    length = len(inputs)
    first = length - fetched(part.lengths).reshape(-1) + lags - 1  # the gaps stand in front
    middle, steps = (first + length) // 2, np.arange(length)[:, None]
    train_at, test_at = (np.nonzero((steps >= a) & (steps < b)) for a, b in ((first, middle), (middle, length)))
    if len(train_at[0]) < _PER_UNIT * states.shape[-1] or not len(test_at[0]):
        return np.full(lags, np.nan)
    train, test = states[train_at], states[test_at]
    centre, spread = train.mean(axis=0), train.std(axis=0)
    train, test = ((x - centre) / np.where(spread > 0, spread, np.inf) for x in (train, test))
    gram = train.T @ train + _RIDGE * len(train) * np.eye(train.shape[-1])
    capacity = np.zeros(lags)
    for lag in range(lags):
        fit, judge = (inputs[t - lag, sequence] for t, sequence in (train_at, test_at))
        errors = judge - fit.mean(axis=0) - test @ np.linalg.solve(gram, train.T @ (fit - fit.mean(axis=0)))
        varied = ((judge - judge.mean(axis=0)) ** 2).sum(axis=0)
        varies = varied > _CONSTANT * (judge**2).sum(axis=0)
        share = 1 - (errors**2).sum(axis=0) / np.where(varies, varied, np.inf)
        capacity[lag] = np.where(varies, np.maximum(share, 0), 0).sum()
    return capacity
