"""What the passes of `contexts` should give, in plain loops that share no code with the library.

Each sequence alone, without the steps that do not count: outputs and gates by the equations of `family` in NumPy;
gradients by `jax.grad` of a plain `jax.lax.scan`; Jacobians by `jax.jacfwd` of one plain step on the joint state.
Arrays are [T, B, ...] with the counted steps of each sequence in front, and zeros behind them.
"""

import functools
import itertools
from typing import Any, NamedTuple

import family
import jax
import jax.numpy as jnp
import numpy as np

import lstmx


class Rows(NamedTuple):
    """What a step gets beside the state, counted steps in front: [T, B, ...]."""

    x: Any
    reset: Any
    kept: Any  # the share of each number of the joint state that a Zoneout keeps
    dropped: Any  # what the outputs of the lowest layer are multiplied by


# ------------------------------------------------------------------------------------------ one step in jax.numpy


def lstm(params, s, x):
    """The next (h, c) as one array."""
    h, c = jnp.split(s, 2)
    i, f, g, o = jnp.split(x @ params.input_kernel + h @ params.recurrent_kernel + params.bias, 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(c), c])


def gru(params, h, x):
    """The next h."""
    r, z, n = jnp.split(x @ params.input_kernel + params.bias, 3)
    u_r, u_z, u_n = jnp.split(h @ params.recurrent_kernel, 3)
    r, z = jax.nn.sigmoid(r + u_r), jax.nn.sigmoid(z + u_z)
    return (1 - z) * jnp.tanh(n + r * (u_n + params.candidate_bias)) + z * h


def controlled(equations, params, s, x, reset, kept):
    """The next state where it may start anew, or be kept in part."""
    s = jnp.where(reset, 0.0, s)
    return kept * s + (1 - kept) * equations(params, s, x)


def joint_step(kind, params, s, row):
    """The next joint state of a cell, or of an LSTM with a GRU on it."""
    if kind == "lstm":
        return controlled(lstm, params, s, *row[:3])
    below = 2 * row.dropped.shape[-1]
    low = controlled(lstm, params[0], s[:below], row.x, row.reset, row.kept[:below])
    up = low[: below // 2] * row.dropped
    return jnp.concatenate([low, controlled(gru, params[1], s[below:], up, row.reset, row.kept[below:])])


@functools.partial(jax.jit, static_argnames="kind")
def jacobians(kind, params, before, rows):
    """∂s_t/∂s_{t-1} [T, B, S, S] and ∂s_t/∂x_t [T, B, S, D]."""

    def both(s, row):
        state = jax.jacfwd(lambda s: joint_step(kind, params, s, row))(s)
        return state, jax.jacfwd(lambda x: joint_step(kind, params, s, row._replace(x=x)))(row.x)

    return jax.vmap(jax.vmap(both))(before, rows)


@functools.partial(jax.jit, static_argnames="kind")
def parameter_parts(kind, params, before, rows, cotangents):
    """What each step adds to the parameters' gradient, from cotangents [T, B, S] of the states after: [T, ...]."""

    def part(s, row, v):
        return jax.vjp(lambda params: joint_step(kind, params, s, row), params)[1](v)[0]

    parts = jax.vmap(jax.vmap(part))(before, rows, cotangents)
    return jax.tree.map(lambda x: x.sum(axis=1), parts)


def nearest_influence(kind, params, before, rows, matrices):
    """∂s_t/∂θ where only what a parameter reaches within a step is kept, [T, B, S, P], from ∂s_t/∂s_{t-1}."""
    shape = before.shape
    direct = np.zeros((*shape, sum(x.size for x in jax.tree.leaves(params))))
    for t, b, k in np.ndindex(*shape):
        one = np.zeros((1, 1, shape[-1]))
        one[..., k] = 1
        here = Rows(*(r[t : t + 1, b : b + 1] for r in rows))
        parts = parameter_parts(kind, params, before[t : t + 1, b : b + 1], here, one)
        direct[t, b, k] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(parts)])
    kept, found = (direct != 0).any(axis=(0, 1)), np.zeros_like(direct)
    for t in range(shape[0]):
        found[t] = kept * (direct[t] + (matrices[t] @ found[t - 1] if t else 0))
    return found


# --------------------------------------------------------------------------------------------- a pass in jax.lax


def scanned(equations, params, s0, rows, moved):
    """States [T, S] of one layer; `moved` is added to each."""

    def step(s, at):
        row, moved = at
        s = controlled(equations, params, s, *row) + moved
        return s, s

    return jax.lax.scan(step, s0, (rows, moved))[1]


def both_ways(params, s0, x, moved, n):
    """States [T, 2H] of a GRU in either direction, in the order of time; of one sequence of n steps."""
    h = s0.shape[-1] // 2
    turned = (n - 1 - jnp.arange(len(x))) % len(x)  # what lies behind the n steps stays behind them
    nothing = jnp.zeros(len(x), bool), jnp.zeros((len(x), h))
    forward = scanned(gru, params[0], s0[:h], (x, *nothing), moved[:, :h])
    backward = scanned(gru, params[1], s0[h:], (x[turned], *nothing), moved[turned][:, h:])
    return jnp.concatenate([forward, backward[turned]], axis=-1)


def passed(kind, params, s0, rows, moved, n):
    """Outputs [T, H] and final state [S] of one sequence; `moved` [T, S] is added to the states."""
    below = 2 * rows.dropped.shape[-1]
    if kind == "lstm":
        states = scanned(lstm, params, s0, rows[:3], moved)
        return states[:, : states.shape[-1] // 2], states[n - 1]
    if kind == "both":
        states = both_ways(params, s0, rows.x, moved, n)
        half = states.shape[-1] // 2
        return states, jnp.concatenate([states[n - 1, :half], states[0, half:]])
    low_rows = (rows.x, rows.reset, rows.kept[:, :below])
    low = scanned(lstm, params[0], s0[:below], low_rows, moved[:, :below])
    up = low[:, : below // 2] * rows.dropped
    if kind == "stack":
        high = scanned(gru, params[1], s0[below:], (up, rows.reset, rows.kept[:, below:]), moved[:, below:])
        return high, jnp.concatenate([low[n - 1], high[n - 1]])
    high = both_ways(params[1], s0[below:], up, moved[:, below:], n)
    half = high.shape[-1] // 2
    return high, jnp.concatenate([low[n - 1], high[n - 1, :half], high[0, half:]])


@functools.partial(jax.jit, static_argnames="kind")
def gradients(kind, params, s0, rows, moved, n, weights, squares):
    """Of Σ weights · outputs + squares · Σ final²: by parameters, initial states, inputs and states on the way."""

    def loss(params, s0, x, moved):
        outputs, final = jax.vmap(functools.partial(passed, kind), in_axes=(None, 0, 1, 1, 0), out_axes=(1, 0))(
            params, s0, rows._replace(x=x), moved, n
        )
        return (weights * outputs).sum() + squares * (final**2).sum()

    return jax.grad(loss, argnums=(0, 1, 2, 3))(params, s0, rows.x, moved)


# -------------------------------------------------------------------------------------------- a pass in NumPy


def fields(cell, s):
    """A state of a cell from its numbers in one array."""
    sizes = np.cumsum([0, *cell.field_sizes])
    return cell.state_type(*(s[..., a:b] for a, b in itertools.pairwise(sizes)))


def unchanged(step, name, value):
    """What `alone` computes, as it is."""
    return value


def alone(cell, params, s0, xs, reset, kept, change=unchanged):
    """One sequence of one cell: states [n, S] and gates by name [n, H].

    `change` is called with the number of the step and what `family.equations` says.
    """
    states, gates, s = [], [], s0
    for step, x in enumerate(xs):
        start = np.zeros_like(s) if reset[step] else s
        changed = functools.partial(change, step)
        after, found = family.equations(cell, params, fields(cell, start), x, changed)
        s = kept[step] * start + (1 - kept[step]) * np.concatenate(after)
        states.append(s)
        gates.append(found)
    return np.stack(states), {name: np.stack([g[name] for g in gates]) for name in gates[0]}


class Pass(NamedTuple):
    """One sequence through everything."""

    outputs: np.ndarray
    states: np.ndarray
    final: np.ndarray
    gates: dict[str, dict[str, np.ndarray]]


def by_hand(kind, cell, params, s0, rows, n, change=unchanged):
    """One sequence of n steps: `rows` are [T, ...]; `change` is of the lowest cell, or of its way forward."""
    x, reset, kept, dropped = (r[:n] for r in rows)
    if kind == "lstm":
        states, gates = alone(cell, params, s0, x, reset, kept, change)
        return Pass(states[:, : states.shape[-1] // 2], states, states[-1], {"": gates})
    if kind == "both":
        return _both(cell, params, s0, x, change)
    low, (first, second), below = cell.cells[0], params, 2 * dropped.shape[-1]
    states, gates = alone(low, first, s0[:below], x, reset, kept[:, :below], change)
    up = states[:, : below // 2] * dropped
    if kind == "stack":
        high, own = alone(cell.cells[1], second, s0[below:], up, reset, kept[:, below:])
        top = Pass(high, high, high[-1], {"layer 1": own})
    else:
        top = _both(cell.cells[1], second, s0[below:], up)
        top = top._replace(gates={f"layer 1, {name}": own for name, own in top.gates.items()})
    joined = np.concatenate([states, top.states], axis=-1)
    return Pass(top.outputs, joined, np.concatenate([states[-1], top.final]), {"layer 0": gates} | top.gates)


def _both(pair, params, s0, x, change=unchanged):
    h, still = pair.cell.hidden_size, np.zeros((len(x), 1))
    forward, gates = alone(pair.cell, params[0], s0[:h], x, still[:, 0] > 0, still, change)
    backward, others = alone(pair.cell, params[1], s0[h:], x[::-1], still[:, 0] > 0, still)
    states = np.concatenate([forward, backward[::-1]], axis=-1)
    gates = {"forward": gates, "backward": {name: x[::-1] for name, x in others.items()}}
    return Pass(states, states, np.concatenate([forward[-1], backward[-1]]), gates)


# ------------------------------------------------------------------------------------- what matrices come to


def exponents(matrices, seed=0):
    """Means of ln |R_ii| of a QR decomposition at each step, from the frame that the library starts from."""
    size = matrices.shape[-1]
    frame, sums = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0], np.zeros(size)
    for matrix in matrices:
        frame, r = np.linalg.qr(matrix @ frame)
        sums += np.log(np.abs(np.diag(r)))
    return sums / len(matrices)


def orders(matrices, seed, straight, most):
    """A cotangent by how often its path left `straight` numbers: before each step, [n + 1, most + 2, S]."""
    found = [np.zeros((most + 2, len(seed)))]
    found[0][0] = seed
    for matrix in matrices[::-1]:
        before = found[-1] @ matrix
        kept, crossed = np.where(straight, before, 0), np.where(straight, 0, before)
        after = kept
        after[1:] += crossed[:-1]
        after[-1] += crossed[-1]
        found.append(after)
    return np.stack(found[::-1])


def state_of(tree):
    """The numbers of a state, or of the states of layers, in one array."""
    return np.concatenate([np.asarray(x) for x in jax.tree.leaves(tree)], axis=-1)


def textbook_step(params, state, x):
    """An LSTM as a function of one's own, for `lstmx.from_step`."""
    named = lstmx.LSTMParams(**params)
    s = lstm(named, jnp.concatenate(state), x)
    a = x @ named.input_kernel + state[0] @ named.recurrent_kernel + named.bias
    gates = {"input_gate": a[..., : len(state[0])], "forget_gate": a[..., len(state[0]) : 2 * len(state[0])]}
    return tuple(jnp.split(s, 2)), {name: jax.nn.sigmoid(value) for name, value in gates.items()}


def step_function(features, hidden):
    """The cell of it."""
    start = (np.zeros(hidden), np.zeros(hidden))
    return lstmx.from_step(textbook_step, start, features, gates=("input_gate", "forget_gate"), name="textbook")
