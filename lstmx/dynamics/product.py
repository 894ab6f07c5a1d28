"""`long_jacobian`: singular values of a product of many Jacobians, none of them lost to rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_traced, jit, namespace, result, scan, to_numpy
from lstmx.checks import finite_history, require_history
from lstmx.gradients.highway import stretch
from lstmx.history import History
from lstmx.layers import StackHistory
from lstmx.linear import state_size, steps_of, walk_forward
from lstmx.scans.chunks import chunk_length

_SWEEPS = 60
_ORTHOGONAL = 1e-14  # greatest cosine between rows that counts as none


@result(static=("steps",))
class LongJacobian:
    """Singular values of J_{stop-1} … J_{start}, the Jacobian of the joint state over a stretch of time.

    Attributes:
        log_singular_values: natural logs, descending, [*batch, S]; NumPy float64. −inf for a zero.
        steps: length of the stretch.
    """

    log_singular_values: np.ndarray
    steps: int

    @property
    def log_norm(self) -> np.ndarray:
        """Ln of the spectral norm, [*batch]: the most that the stretch stretches any change of the state."""
        return self.log_singular_values[..., 0]

    @property
    def log_condition(self) -> np.ndarray:
        """Ln of the greatest over the least singular value, [*batch]; infinite for a singular product."""
        with np.errstate(invalid="ignore"):  # of the zero matrix: NaN
            return self.log_singular_values[..., 0] - self.log_singular_values[..., -1]

    @property
    def exponents(self) -> np.ndarray:
        """Finite-time Lyapunov exponents ln σ_i / steps, in nats per step, [*batch, S]."""
        return self.log_singular_values / self.steps

    def __str__(self) -> str:
        logs = self.log_singular_values
        first, last, condition = (np.median(x) for x in (logs[..., 0], logs[..., -1], self.log_condition))
        middle = "" if logs.ndim == 1 else f" (medians of {logs[..., 0].size} sequences)"
        return (
            f"Jacobian of a joint state of {logs.shape[-1]} over {self.steps} steps{middle}: greatest singular "
            f"value e^{first:.4g}, least e^{last:.4g}, condition e^{condition:.4g}"
        )

    def __repr__(self) -> str:
        return f"LongJacobian({self.steps} steps, log_singular_values {self.log_singular_values.shape})"


def long_jacobian(history: History | StackHistory, start: int = 0, stop: int | None = None) -> LongJacobian:
    """Singular values of the Jacobian of the joint state over a stretch, in log scale.

    The product is never formed. An orthonormal frame is pushed through the stretch with a QR decomposition at
    every step; the triangular factors are multiplied with a scale of its own for every row, so that the product is
    a diagonal matrix of any range times a well-conditioned one; and one-sided Jacobi rotations make the rows
    orthogonal, which keeps the relative accuracy of the least singular value as of the greatest. Within one step,
    a direction that shrinks by more than S times the rounding unit against the greatest counts as lost: −inf.

    Args:
        history: the recorded pass.
        start: first step of the stretch.
        stop: step after the last one; None for the end of the history.

    Returns:
        The singular values, from the state before step `start` to the state after step `stop` − 1.

    Raises:
        TypeError: this is no history, start or stop is no integer, or the history is inside a JAX transformation.
        ValueError: the steps are not 0 ≤ start < stop ≤ T; or NaN or infinity in parameters, inputs or states.

    References:
        Demmel & Veselić, "Jacobi's method is more accurate than QR", SIAM J. Matrix Anal. Appl. 13(4), 1992.
    """
    require_history(history, joint=True)
    if is_traced(history):
        raise TypeError("long_jacobian rotates in NumPy float64 and cannot run inside a JAX transformation")
    first, last = stretch(history, start, stop)
    part = history[first:last]
    finite_history(part)
    rows, scales = to_numpy(_triangular(part))
    logs = np.empty(scales.shape)
    for index in np.ndindex(scales.shape[:-1]):
        logs[index] = log_singular_values(rows[index].astype(np.float64), scales[index].astype(np.float64))
    return LongJacobian(logs, last - first)


@jit()
def _triangular(history: Any) -> tuple[Array, Array]:
    """Rows [*batch, S, S] and their log scales [*batch, S] of a matrix with the product's singular values."""
    xp, size, batch = namespace(history.inputs), state_size(history), history.batch
    dtype = history.inputs.dtype
    orthogonal = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    unit = xp.broadcast_to(xp.eye(size, dtype=dtype), (*batch, size, size))
    frame = xp.broadcast_to(xp.asarray(orthogonal, dtype=dtype), unit.shape)

    def chunk(carry: Any, part: Any) -> tuple[Any, None]:
        steps = steps_of(part).spread()

        def step(carry: Any, rows: Any) -> tuple[Any, None]:
            frame, product, scales = carry
            q, r = xp.linalg.qr(xp.swapaxes(steps.at(rows).push(frame), -1, -2))
            return (xp.swapaxes(q, -1, -2), *_times(_without_noise(r), product, scales)), None

        return scan(step, carry, steps.rows)

    carry = (frame, unit, xp.zeros((*batch, size), dtype=dtype))
    chunk_steps = chunk_length(len(history), 3 * size * math.prod(batch))
    return walk_forward(history, chunk, carry, chunk_steps)[0][1:]


def _without_noise(r: Array) -> Array:
    """A triangular factor without what is below the rounding error of the decomposition.

    A diagonal entry below it says that a direction is lost; what else its row holds of that size is rounding too.
    """
    xp = namespace(r)
    small = xp.abs(r) <= r.shape[-1] * float(np.finfo(np.dtype(r.dtype)).eps) * xp.max(
        xp.abs(r), axis=(-2, -1), keepdims=True
    )
    lost = xp.diagonal(small, axis1=-2, axis2=-1)[..., None]
    return xp.where(small & lost, xp.zeros_like(r), r)


def _times(r: Array, rows: Array, scales: Array) -> tuple[Array, Array]:
    """The triangular `r` times diag(e^scales) · rows, again as rows of greatest magnitude 1 and log scales."""
    xp = namespace(r)
    zero = r == 0
    logs = xp.log(xp.where(zero, xp.ones_like(r), xp.abs(r))) + scales[..., None, :]
    logs = xp.where(zero, -xp.inf, logs)
    greatest = xp.max(logs, axis=-1)
    empty = xp.isneginf(greatest)
    reference = xp.where(empty, xp.zeros_like(greatest), greatest)
    made = (xp.sign(r) * xp.exp(logs - reference[..., None])) @ rows
    size = xp.max(xp.abs(made), axis=-1)
    empty = empty | (size == 0)
    size = xp.where(empty, xp.ones_like(size), size)
    return made / size[..., None], xp.where(empty, -xp.inf, reference + xp.log(size))


def log_singular_values(rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Logs of the singular values of diag(e^scales) · rows, descending.

    One-sided Jacobi rotations between pairs of rows, each with its own scale: a rotation of a long row x and a
    short one e^−d y changes y by what it has of x, relative to y. Disjoint pairs are rotated at once.

    Args:
        rows: [n, n].
        scales: [n]; −inf for a zero row.
    """
    norms = np.linalg.norm(rows, axis=1)
    known = (norms > 0) & np.isfinite(scales)
    rows = rows[known] / norms[known, None]
    scales = scales[known] + np.log(norms[known])
    if len(rows) % 2:
        rows, scales = np.vstack([rows, np.zeros_like(rows[:1])]), np.append(scales, -np.inf)
    order = np.arange(len(rows))
    for _ in range(_SWEEPS):
        worst = 0.0
        for _ in range(len(rows) - 1):
            worst = max(worst, _rotate(rows, scales, order[: len(order) // 2], order[: len(order) // 2 - 1 : -1]))
            order = np.concatenate([order[:1], order[-1:], order[1:-1]])
        if worst <= _ORTHOGONAL:
            break
    logs = np.sort(np.append(scales, np.full(len(known), -np.inf)))[::-1]
    return logs[: len(known)]


def _rotate(rows: np.ndarray, scales: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Make the rows of each pair orthogonal, in place; the greatest cosine there was."""
    swap = scales[first] < scales[second]
    long, short = np.where(swap, second, first), np.where(swap, first, second)
    kept = np.isfinite(scales[short])
    long, short = long[kept], short[kept]
    x, y = rows[long], rows[short]
    cosine = np.einsum("ij,ij->i", x, y)
    turned = np.abs(cosine) > _ORTHOGONAL
    if not turned.any():
        return 0.0
    long, short, x, y, cosine = long[turned], short[turned], x[turned], y[turned], cosine[turned]
    ratio = np.exp(scales[short] - scales[long])
    gap = 1 - ratio**2
    tangent = -2 * cosine / (gap + np.sqrt(gap**2 + 4 * (ratio * cosine) ** 2))  # of the angle, over the ratio
    factor = 1 / np.sqrt(1 + (tangent * ratio) ** 2)
    for index, made in (
        (long, factor[:, None] * (x - (tangent * ratio**2)[:, None] * y)),
        (short, factor[:, None] * (y + tangent[:, None] * x)),
    ):
        norms = np.linalg.norm(made, axis=1)
        noise = norms <= len(rows) * np.finfo(np.float64).eps  # parallel rows: nothing is left of one
        rows[index] = np.where(noise[:, None], 0.0, made / np.where(noise, 1.0, norms)[:, None])
        scales[index] += np.log(np.where(noise, 1.0, norms))
        scales[index[noise]] = -np.inf
    return float(np.abs(cosine).max())
