"""`check_cell`: every derivative that a cell has in closed form, against automatic differentiation."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import has_jax, jax, jnp, map_tree
from lstmx.cells.activations import activated
from lstmx.cells.base import Cell
from lstmx.cells.recurrence import Affine
from lstmx.checks import cells_of, finite_number, parameters, seeding
from lstmx.linear.steps import CellSteps, steps_at

_SINGULAR = -30.0  # ln |det| below which LU decomposition tells nothing from a zero
_SOLVABLE = 1e6  # condition
_WARM_UP = 5  # steps from the zero state to the one that is looked at


def check_cell(cell: Cell, params: Any = None, *, seed: int = 0, tolerance: float = 1e-9) -> dict[str, float]:
    """Compare every derivative of a cell with automatic differentiation of its own equations.

    For whoever writes a cell with closed forms. At a state that a few random steps lead to, in float64, two
    sequences at once: the Jacobian by pairs of fields, what each field gets of each block of pre-activations, of
    the inputs and of every parameter; the parts of a step back, which add up to the whole; gates and their logits;
    the loop's own form of the pre-activations; the step whose values can be edited; ln |det J| and Newton's step
    where they have closed forms.

    Args:
        cell: the cell.
        params: its parameters, in NumPy or JAX; None for normal draws of standard deviation 0.7.
        seed: of the draws, an integer of at least 0.
        tolerance: greatest distance that counts as none, relative to the greatest number of what is compared, or
            to 1 where that is less.

    Returns:
        The distance of each derivative, by name.

    Raises:
        ImportError: JAX is not installed.
        TypeError: this is not a cell with closed forms.
        ValueError: derivatives are wrong: all of these by name, with the factor of `linearise` that they are made
            of, and how far off they are.

    Example:
        >>> import lstmx
        >>> max(lstmx.check_cell(lstmx.LSTM(3, 4, peepholes=True)).values()) < 1e-12
        True
    """
    if not has_jax:
        raise ImportError("check_cell needs the package jax, which is not installed: pip install jax")
    cells_of("cell", cell)
    if not isinstance(cell, Cell) or not cell.closed_form or cell.core is not cell:
        raise TypeError(
            f"cell is {cell!r}; expected one cell that has its derivatives in closed form, as an LSTM has: "
            + _instead(cell)
        )
    if params is not None:
        parameters(cell, params)
    drawn = np.random.default_rng(seeding("seed", seed))
    finite_number("tolerance", tolerance, "a number of at least 0", lambda x: x >= 0)
    with jax.enable_x64(True):
        found = _distances(cell, params, drawn)
    far = sorted((name for name in found if not found[name] <= tolerance), key=lambda name: "(factor" not in name)
    wrong = [f"{name} is off by {found[name]:.2g}" for name in far]
    if wrong:
        raise ValueError(f"{len(wrong)} of {len(found)} derivatives of {cell} are wrong: {'; '.join(wrong)}")
    return found


def _instead(cell: Any) -> str:
    """What to check in the place of what has no derivatives of its own, in words."""
    if not isinstance(cell, Cell):
        return f"check each cell in it, {', '.join(dict.fromkeys(map(repr, cell.parts.values())))}"
    if not cell.closed_form:
        return "those of a step function are JAX's, with nothing to compare"
    return f"check the one inside, {cell.core!r}"


def _distances(cell: Cell, params: Any, draws: np.random.Generator) -> dict[str, float]:
    """What is in closed form runs in NumPy, and what it is compared with in one program of JAX."""
    shapes = cell.parameter_shapes()
    if params is None:
        params = type(shapes)(*(None if shape is None else draws.normal(0, 0.7, shape) for shape in shapes))
    params = map_tree(lambda x: np.asarray(x, np.float64), params)
    before = cell.initial_state(params, (2,))
    for _ in range(_WARM_UP):
        before = cell.step(params, before, draws.normal(size=(2, cell.input_size)))[0]
    x = draws.normal(size=(2, cell.input_size))
    after, a = cell.step(params, before, x)
    steps = steps_at(cell, params, before, x, a, after)
    cotangent = draws.normal(size=(2, cell.state_size))
    found: dict[str, float] = {}

    def compare(name: str, ours: Any, theirs: Any) -> None:
        theirs = np.asarray(theirs)
        scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
        with np.errstate(invalid="ignore"):
            found[name] = float(np.abs(np.asarray(ours) - theirs).max(initial=0.0)) / scale

    _compare_maps(cell, steps, cotangent, _by_autodiff(cell, params, before, x, a, cotangent), compare)

    gates = cell.readings(before, a)
    for name in cell.gate_names:
        logit = cell.gate_logit(name, before, a)
        compare(f"gate_logit of {name}", activated(cell.gate_activation, logit), getattr(gates, name))
    compare("joined, the loop's pre-activations", cell.joined(params)(before, x), a)
    unfolded = cell.unfolded(params)(before, x, lambda values, names: values)
    compare("unfolded, the step that can be edited", cell.pack(unfolded[0]), cell.pack(after))
    matrices, closed = steps.matrices(), steps.log_determinant()
    if closed is not None:
        known = np.linalg.slogdet(matrices)[1]
        singular = np.isneginf(closed) & (known < _SINGULAR)
        compare("log_determinant", np.where(singular, 0.0, closed), np.where(singular, 0.0, known))
    away, residual = np.eye(cell.state_size) - matrices, draws.normal(size=(2, cell.state_size))
    if (np.linalg.cond(away) < _SOLVABLE).all():
        compare("newton_step", steps.newton_step(residual), np.linalg.solve(away, residual[..., None])[..., 0])
    return found


def _by_autodiff(cell: Cell, params: Any, before: Any, x: Any, a: Any, cotangent: Any) -> tuple[Any, ...]:
    """∂s_t/∂s_{t-1}, ∂s_t/∂x and ∂s_t/∂a at fixed s_{t-1}, each [2, S, …]; and the cotangents of params and x."""

    def after(params: Any, before: Any, x: Any) -> Any:
        return cell.pack(cell.step(params, cell.unpack(before), x)[0])

    def updated(before: Any, a: Any) -> Any:
        return cell.pack(cell.update(cell.unpack(before), a))

    @jax.jit
    def derivatives(params: Any, before: Any, x: Any, a: Any, cotangent: Any) -> tuple[Any, ...]:
        of_state, of_x = jax.vmap(jax.jacrev(after, argnums=(1, 2)), in_axes=(None, 0, 0))(params, before, x)
        of_a = jax.vmap(jax.jacrev(updated, argnums=1))(before, a)
        d_params, _, d_x = jax.vjp(after, params, before, x)[1](cotangent)
        return of_state, of_x, of_a, d_params, d_x

    given = map_tree(jnp.asarray, (params, cell.pack(before), x, a, cotangent))
    return derivatives(*given)


def _compare_maps(cell: Cell, steps: CellSteps, cotangent: Any, theirs: tuple[Any, ...], compare: Any) -> None:
    """The Jacobians with respect to the state, the inputs, the pre-activations and the parameters."""
    of_state, of_x, of_a, d_params, d_x = theirs
    ends = np.cumsum(cell.field_sizes)
    fields = {
        name: slice(end - size, end)
        for name, end, size in zip(cell.state_type._fields, ends, cell.field_sizes, strict=True)
    }
    matrices, inputs = steps.matrices(), steps.input_matrices()
    unit = np.broadcast_to(np.eye(cell.state_size)[:, None], (cell.state_size, 2, cell.state_size))
    pulled, drive = (np.moveaxis(np.asarray(x), 0, 1) for x in steps.vjp(unit))  # rows of the Jacobians
    compare("vjp, the transposed of the Jacobian", pulled, matrices)
    # Elsewhere pre-activations are computed from one another, and their cotangents are no plain derivatives.
    plain = type(cell.recurrence).cotangent is Affine.cotangent and set(cell.reads) <= {"hidden"}
    for row, rows in fields.items():
        for column, columns in fields.items():
            factors = [k for k, pair in cell.layout.from_before.items() if pair == (row, column)]
            word = f"∂{row}/∂{column}" + (f" (factor {', '.join(factors)})" if factors else "")
            compare(word, matrices[:, rows, columns], of_state[:, rows, columns])
        compare(f"∂{row}/∂x", inputs[:, rows], of_x[:, rows])
        for k, block in enumerate(cell.layout.blocks if plain else ()):
            columns = slice(k * cell.hidden_size, (k + 1) * cell.hidden_size)
            direct = [name for name, pair in cell.layout.from_blocks.items() if pair == (row, k)]
            through = [name for name, (into, _) in cell.layout.from_after.items() if into == row]
            word = f"∂{row}/∂{block} (factor {', '.join(direct or through) or 'missing in the layout'})"
            compare(word, drive[:, rows, columns], of_a[:, rows, columns])
    before_cotangent, drive = steps.vjp(cotangent)
    compare("the cotangent of x", steps.input_vjp(drive), d_x)
    ours = steps.parameter_vjp(drive)
    for name, mine, known in zip(type(ours)._fields, ours, d_params, strict=True):
        if known is not None:
            compare(f"the cotangent of {name}", mine, known)
    parts = [*steps.by_gate(drive).values(), steps.along_state(cotangent)]
    compare("by_gate and along_state together", sum(parts), before_cotangent)
