"""The equations of every cell in plain NumPy, right or with known mistakes, and what follows from them.

Nothing of lstmx computes here. Derivatives are complex steps: a number that is moved by i 10⁻³⁰ moves the result
by 10⁻³⁰ times the derivative along i, without rounding error. So a mistake is made once, in the equations, and all
that follows from it follows by itself. Arrays have an axis of such moves in front, [K, B, ·].

Changes are a dict of what is wrong, empty for the equations as they are; `mistakes.py` makes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from lstmx.conformance.cases import DYNAMICS, Case

_TINY = 1e-30
_FAR = 12.0  # beyond which gates round to 0 and 1, and everything is at rest
Changes = Mapping[str, Any]
State = dict[tuple[str, str], np.ndarray]
Nudge = Callable[[tuple[str, str], np.ndarray], np.ndarray]

BLOCKS = {
    "LSTM": ("input_gate", "forget_gate", "candidate", "output_gate"),
    "GRU": ("reset_gate", "update_gate", "candidate"),
    "SimpleRNN": ("candidate",),
    "JANET": ("forget_gate", "candidate"),
    "MGU": ("forget_gate", "candidate"),
    "MinLSTM": ("forget_gate", "input_gate", "candidate"),
    "MinGRU": ("input_gate", "candidate"),
    "SLSTM": ("input_gate", "forget_gate", "candidate", "output_gate"),
}
BLOCKED = ("input_kernel", "recurrent_kernel", "bias", "recurrent_gain", "input_gain")


def blocks_of(cell: Any) -> tuple[str, ...]:
    """What the blocks of columns of a cell's parameters are for."""
    own = BLOCKS[type(cell).__name__]
    return tuple(name for name in own if not (name == "forget_gate" and getattr(cell, "coupled", False)))


# --------------------------------------------------------------------------------------------- the equations


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def _gate(word: str, a: Any) -> np.ndarray:
    if word == "sigmoid":
        return _sigmoid(a)
    line = a / 6 + 0.5 if word == "hard_sigmoid" else 0.2 * a + 0.5
    return np.where((line.real > 0) & (line.real < 1), line, np.clip(line.real, 0, 1))


def _relu(a: Any) -> np.ndarray:
    return a * (a.real > 0)


def _normal(z: np.ndarray) -> np.ndarray:
    centred = z - z.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def _split(a: np.ndarray, size: int) -> list[np.ndarray]:
    return [a[..., k : k + size] for k in range(0, a.shape[-1], size)]


def _step(
    cell: Any, p: dict[str, np.ndarray], state: Any, x: Any, nudge: Any, changes: Changes
) -> tuple[Any, Any]:
    """The state after a step of one cell by field, and its gates by name."""
    kind, size = type(cell).__name__, cell.hidden_size
    if changes.get("detached") == "state":
        state = {field: value.real for field, value in state.items()}
    h = state["hidden"]
    seen = h.real if changes.get("detached") == "hidden" else h
    own = x @ p["input_kernel"]
    if kind == "GRU":
        return _gru(cell, p, h, seen, own + p["bias"], nudge, changes)
    if kind == "MGU":
        a_f, a_n = _split(own + p["bias"], size)
        u_f, u_n = _split(p["recurrent_kernel"], size)
        f = _sigmoid(a_f + seen @ u_f)
        n = np.tanh(a_n + (f * seen) @ u_n)
        kept = f if changes.get("inverted") else 1 - f
        gates = {"forget_gate": f, "update_gate": 1 - f, "candidate": n}
        return {"hidden": nudge("hidden", kept * h + (1 - kept) * n)}, gates
    if kind.startswith("Min"):
        return _minimal(kind, _split(own + p["bias"], size), h, nudge, changes)
    if getattr(cell, "layer_norm", False):
        both = _normal(seen @ p["recurrent_kernel"]) * p["recurrent_gain"] + _normal(own) * p["input_gain"]
        a = _split(both + p["bias"], size)
    else:
        a = _split(own + seen @ p["recurrent_kernel"] + p["bias"], size)
    if kind == "LSTM":
        return _lstm(cell, p, state, a, nudge, changes)
    if kind == "SLSTM":
        return _slstm(state, a, nudge)
    if kind == "JANET":
        f, g = _sigmoid(a[0]), np.tanh(a[1])
        after = f * h + (1 - _sigmoid(a[0] - cell.beta)) * g
        return {"hidden": nudge("hidden", after)}, {"forget_gate": f, "candidate": g}
    after = _relu(a[0]) if cell.activation == "relu" else np.tanh(a[0])
    return {"hidden": nudge("hidden", after)}, {"candidate": after}


def _lstm(cell: Any, p: Any, state: Any, a: Any, nudge: Any, changes: Changes) -> tuple[Any, Any]:
    word, c = changes.get("gate_activation", cell.gate_activation), state["cell"]
    a_i, a_f, a_g, a_o = (a[0], -a[0], *a[1:]) if cell.coupled else a
    p_i, p_f, p_o = _split(p["peephole"], cell.hidden_size) if cell.peepholes else (0, 0, 0)
    i, f, g = _gate(word, a_i + p_i * c), _gate(word, a_f + p_f * c), np.tanh(a_g)
    c = nudge("cell", f * c + i * g)
    o = _gate(word, a_o + p_o * c)
    h = o * np.tanh(_normal(c) * p["cell_gain"] + p["cell_shift"] if cell.layer_norm else c)
    h = nudge("hidden", h @ p["projection"] if cell.projection else h)
    return {"hidden": h, "cell": c}, {"input_gate": i, "forget_gate": f, "candidate": g, "output_gate": o}


def _gru(cell: Any, p: Any, h: Any, seen: Any, own: Any, nudge: Any, changes: Changes) -> tuple[Any, Any]:
    a_r, a_z, a_n = _split(own, cell.hidden_size)
    u_r, u_z, u_n = _split(p["recurrent_kernel"], cell.hidden_size)
    r, z = _sigmoid(a_r + seen @ u_r), _sigmoid(a_z + seen @ u_z)
    inside = p.get("candidate_bias", 0)
    if changes.get("reset", cell.reset) == "after":
        a_n = a_n + r * (seen @ u_n + inside)
    else:
        a_n = a_n + (r * seen) @ u_n + inside
    n = np.tanh(a_n)
    kept = 1 - z if changes.get("inverted") else z
    gates = {"reset_gate": r, "update_gate": z, "candidate": n}
    return {"hidden": nudge("hidden", (1 - kept) * n + kept * h)}, gates


def _minimal(kind: str, a: Any, h: Any, nudge: Any, changes: Changes) -> tuple[Any, Any]:
    g = np.where(a[-1].real >= 0, a[-1] + 0.5, _sigmoid(a[-1]))
    if kind == "MinLSTM":
        f, i = _sigmoid(a[0]), _sigmoid(a[1])
        i, f = i / (f + i), f / (f + i)
        gates = {"input_gate": i, "forget_gate": f, "candidate": g}
    else:
        i = _sigmoid(a[0])
        f = i if changes.get("inverted") else 1 - i
        gates = {"input_gate": i, "update_gate": 1 - i, "candidate": g}
        i = 1 - f
    return {"hidden": nudge("hidden", f * h + i * g)}, gates


def _slstm(state: Any, a: Any, nudge: Any) -> tuple[Any, Any]:
    a_i, a_f, a_z, a_o = a
    old = np.log(_sigmoid(a_f)) + state["stabiliser"]
    m = nudge("stabiliser", np.where(old.real > a_i.real, old, a_i))
    into, kept = np.exp(a_i - m), np.exp(old - m)
    z, o = np.tanh(a_z), _sigmoid(a_o)
    c = nudge("cell", kept * state["cell"] + into * z)
    n = nudge("normaliser", kept * state["normaliser"] + into)
    share = into / (kept * state["normaliser"] + into)
    gates = {"input_gate": share, "forget_gate": 1 - share, "candidate": z, "output_gate": o}
    return {"hidden": nudge("hidden", o * c / n), "cell": c, "normaliser": n, "stabiliser": m}, gates


# ------------------------------------------------------------------------------------------------- parameters


def changed_parameters(case: Case, params: Any, changes: Changes) -> dict[str, np.ndarray]:
    """The parameters [K, ·, ·] that an implementation with these mistakes computes with."""
    made = dict(params)
    for part, cell in case.parts:
        names = blocks_of(cell)
        for name in BLOCKED:
            if f"{part}{name}" in made:
                made[f"{part}{name}"] = _changed(case, part, cell, name, made[f"{part}{name}"], names, changes)
        inside = f"{part}candidate_bias"
        if inside in made and changes.get("lost_inside") == "left out":
            made[inside] = 0 * made[inside]
        if inside in made and changes.get("lost_inside") == "read as 0":  # which has a derivative
            made[inside] = made[inside] - case.params[inside]
    return made


def _changed(
    case: Case, part: str, cell: Any, name: str, array: np.ndarray, names: tuple[str, ...], changes: Changes
) -> np.ndarray:
    size = cell.hidden_size
    lost = changes.get("lost_bias")
    if name == "bias" and lost and f"{part}{lost}_bias" in case.two_biases:
        less = case.two_biases[f"{part}{lost}_bias"].copy()
        if f"{part}candidate_bias" in case.params and lost == "recurrent":
            less[-size:] = 0  # the candidate's stands apart
        array = array - less
    if name == "bias" and "forget_bias" in changes and {"forget_gate", "input_gate"} & set(names):
        forget = "forget_gate" in names
        at = names.index("forget_gate" if forget else "input_gate") * size
        shift = np.zeros(array.shape[-1])
        shift[at : at + size] = changes["forget_bias"] * (1 if forget else -1)
        array = array + shift
    if "blocks" in changes and len(changes["blocks"]) == len(names):
        parts = _split(array, size)
        array = np.concatenate([parts[k] for k in changes["blocks"]], axis=-1)
    if name == "recurrent_kernel" and changes.get("transposed") and array.shape[-2] == size:
        array = np.concatenate([np.swapaxes(one, -1, -2) for one in _split(array, size)], axis=-1)
    return array


# ----------------------------------------------------------------------------------------------- one direction


def _still(place: tuple[str, str], value: np.ndarray) -> np.ndarray:
    del place
    return value


class _Way:
    """One direction of time: cells on one another, over inputs [T, B, D] of which `counts` [T, B] are read."""

    def __init__(self, case: Case, parts: Any, xs: Any, counts: Any, weights: Any, changes: Changes):
        self.case, self.parts, self.changes = case, parts, changes
        self.xs, self.counts, self.weights = xs, counts, weights
        self.names = [n for n in case.params if any(n.startswith(part) for part, _ in parts)]
        self.params = {
            name: (value[None] if value.ndim == 2 else value[None, None])
            for name, value in ((name, case.params[name]) for name in self.names)
        }
        self.fields = [(part, field) for part, cell in parts for field in cell.state_type._fields]
        self.sizes = [case.state[f"{part}{field}_state"].shape[-1] for part, field in self.fields]
        ends = np.cumsum([0, *self.sizes])
        self.at = {
            place: slice(a, b) for place, a, b in zip(self.fields, ends, ends[1:], strict=False)
        }  # of the joint state
        self.start = {(part, field): case.state[f"{part}{field}_state"] for part, field in self.fields}
        if changes.get("read_swapped"):
            self.start = _swapped(self.start)
        self._maps: list[Any] | None = None
        self.states, self.gates = self._run()

    def step(self, state: State, x: np.ndarray, params: Any, nudge: Nudge = _still) -> tuple[State, Any]:
        params = changed_parameters(self.case, params, self.changes)
        after, found = {}, {}
        for part, cell in self.parts:
            own = {name.removeprefix(part): value for name, value in params.items() if name.startswith(part)}
            mine = {field: state[part, field] for field in cell.state_type._fields}
            moved, gates = _step(cell, own, mine, x, lambda f, v, part=part: nudge((part, f), v), self.changes)
            after |= {(part, field): value for field, value in moved.items()}
            found |= {(part, name): value for name, value in gates.items()}
            x = moved["hidden"]
        return after, found

    def _run(self) -> tuple[list[State], list[Any]]:
        state, states, gates = self.start, [], []
        for x, counts in zip(self.xs, self.counts, strict=True):
            after, found = self.step(state, x, self.params)
            held = counts[:, None]
            state = {place: np.where(held, after[place][0], state[place]) for place in self.fields}
            states.append(state)
            gates.append({place: value[0] for place, value in found.items()})
        return states, gates

    @property
    def outputs(self) -> np.ndarray:
        """[T, B, O], 0 where a step does not count."""
        last = np.stack([state[self.parts[-1][0], "hidden"] for state in self.states])
        return np.where(self.counts[..., None], last, 0)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def pack(self, state: State) -> np.ndarray:
        return np.concatenate([state[place] for place in self.fields], axis=-1)

    def unpack(self, packed: np.ndarray) -> State:
        return {place: packed[..., at] for place, at in self.at.items()}

    # ------------------------------------------------------------------------------------------ derivatives

    @property
    def maps(self) -> list[tuple[np.ndarray, ...]]:
        """Of each step ∂s_t/∂(s_{t-1}, moves of fields where they are made, x_t, parameters), [k, B, S] each."""
        if self._maps is None:
            befores = [self.start, *self.states[:-1]]
            self._maps = [self._linear(*given) for given in zip(befores, self.xs, self.counts, strict=True)]
        return self._maps

    def _linear(self, before: State, x: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
        sizes = [self.size, self.size, x.shape[-1], *(value.size for value in self.params.values())]
        ends = np.cumsum([0, *sizes])
        moves = [slice(a, b) for a, b in itertools.pairwise(ends)]
        total = ends[-1]

        def moved(value: np.ndarray, at: slice) -> np.ndarray:
            """`value` [.., n] with number k of it moved in place at.start + k of the axis in front."""
            unit = np.zeros((total, at.stop - at.start), complex)
            unit[at] = 1j * _TINY * np.eye(at.stop - at.start)
            return value + unit[:, None]

        def nudge(place: tuple[str, str], value: np.ndarray) -> np.ndarray:
            unit = np.zeros((total, self.size), complex)
            unit[moves[1]] = 1j * _TINY * np.eye(self.size)
            return value + unit[:, None, self.at[place]]

        state = self.unpack(moved(self.pack(before), moves[0]))
        params = {}
        for (name, value), at in zip(self.params.items(), moves[3:], strict=True):
            flat = moved(value.reshape(1, -1), at)
            params[name] = flat.reshape(total, *value.shape[1:])
        made: Any = self.pack(self.step(state, moved(x, moves[2]), params, nudge)[0])
        after = made.imag / _TINY
        held = counts[:, None]
        found = [np.where(held, after[at], 0) for at in moves]
        found[0] = np.where(held, found[0], np.eye(self.size)[:, None])
        return tuple(found)

    def jacobians(self) -> np.ndarray:
        """[T, B, S, S]."""
        return np.stack([np.transpose(maps[0], (1, 2, 0)) for maps in self.maps])

    def gradients(self) -> dict[str, np.ndarray]:
        """∂L/∂ everything."""
        direct = np.zeros((*self.xs.shape[:2], self.size))
        direct[..., self.at[self.parts[-1][0], "hidden"]] = self.weights
        cotangents = self._cotangents(direct)
        found: dict[str, Any] = {}
        along = [
            [np.einsum("kbs,bs->kb", part, v) for part in maps[1:]]
            for maps, v in zip(self.maps, cotangents[1:], strict=True)
        ]
        found["gradient.inputs"] = np.stack([one[1].T for one in along])
        totals = np.stack([one[0].T for one in along])
        if self.changes.get("total") == "outputs":
            totals = direct
        elif self.changes.get("total") == "fields":
            totals = cotangents[1:]
        for (part, field), at in self.at.items():
            found[f"gradient.{part}{field}_state"] = totals[..., at]
            found[f"gradient.initial_{part}{field}_state"] = cotangents[0][..., at]
        for k, name in enumerate(self.names):
            total = sum(one[2 + k].sum(axis=-1) for one in along)
            found[f"gradient.{name}"] = np.reshape(total, self.case.params[name].shape)
        return found

    def _cotangents(self, direct: np.ndarray) -> np.ndarray:
        """Of the joint state before the first step and after each, [T + 1, B, S]."""
        order, maps = self.changes.get("order"), np.transpose([maps[0] for maps in self.maps], (0, 2, 1, 3))
        # maps[t, b] is J_tᵀ
        found = np.concatenate([np.zeros_like(direct[:1]), direct])
        if order == "reversed":
            for t in range(len(found) - 1):
                product = np.broadcast_to(np.eye(self.size), maps[0].shape)
                for k in range(t, len(maps)):  # J_kᵀ … J_{t+1}ᵀ, where J_{t+1}ᵀ … J_kᵀ is right
                    product = maps[k] @ product
                    found[t] += np.einsum("bij,bj->bi", product, direct[k])
            return found
        if order == "transposed":
            maps = np.swapaxes(maps, -1, -2)
        for t in range(len(maps) - 1, -1, -1):
            found[t] += np.einsum("bij,bj->bi", maps[t], found[t + 1])
        return found

    def dynamics(self) -> dict[str, np.ndarray]:
        """Jacobians, and exponents of their product."""
        jacobians, order = self.jacobians(), self.changes.get("order")
        if self.changes.get("jacobian") == "hidden":
            at = self.at[self.parts[-1][0], "hidden"]
            jacobians = jacobians[..., at, at]
        factors = jacobians[::-1] if order == "reversed" else jacobians
        factors = np.swapaxes(factors, -1, -2) if order == "transposed" else factors
        product = logs = np.broadcast_to(np.eye(factors.shape[-1]), factors[0].shape)
        logs, orthogonal = np.zeros(factors.shape[1:3]), product
        with np.errstate(divide="ignore"):
            for factor in factors:
                product = factor @ product
                orthogonal, r = np.linalg.qr(factor @ orthogonal)
                logs = logs + np.log(np.abs(np.diagonal(r, axis1=-2, axis2=-1)))
            singular = np.log(np.linalg.svd(product, compute_uv=False))
        scale = len(factors) * (np.log(2) if self.changes.get("base") == 2 else 1)
        return dict(zip(DYNAMICS, (jacobians, singular / scale, logs / scale), strict=True))

    def rest(self) -> np.ndarray:
        """Fixed points under the case's constant input, [N, S]: Newton's method from the truth and many starts."""
        draws = np.random.default_rng(0)
        start = draws.uniform(-3, 3, size=(24, self.size))
        for (_, field), at in self.at.items():
            if field == "normaliser":
                start[:, at] = 1 + np.abs(start[:, at])
        s = np.concatenate([self.case.truth["fixed_points"], start])
        x = np.broadcast_to(self.case.x, (len(s), len(self.case.x)))
        move = s
        with np.errstate(all="ignore"):
            for _ in range(30):
                unit = np.concatenate([np.zeros((1, self.size)), np.eye(self.size)]) * 1j * _TINY
                after: Any = self.pack(self.step(self.unpack(s + unit[:, None]), x, self.params)[0])
                off = after[0].real - s
                slopes = np.eye(self.size) - np.transpose(after[1:].imag / _TINY, (1, 2, 0))
                usable = np.isfinite(off).all(axis=1) & np.isfinite(np.linalg.slogdet(slopes)[1])
                slopes, off, s, x = slopes[usable], off[usable], s[usable], x[usable]
                move = np.linalg.solve(slopes, off[..., None])[..., 0]
                reach = np.maximum(1, np.abs(move).max(axis=1, keepdims=True, initial=0) / 2)
                s = s + move / reach
        found: list[np.ndarray] = []
        for one, error in zip(s, np.abs(move).max(axis=1), strict=True):
            near = any(np.abs(one - other).max() < 1e-6 for other in found)
            if error < 1e-9 and np.abs(one).max() < _FAR and not near:
                found.append(one)
        return np.array(found).reshape(-1, self.size)


def _swapped(state: State) -> State:
    """(c, h) in the place of (h, c)."""
    other = {"hidden": "cell", "cell": "hidden"}
    return {(part, field): state[part, other[field]] for part, field in state}


# ------------------------------------------------------------------------------------------------ all of a case


class World:
    """All results of a case under some changes; computed as they are asked for."""

    def __init__(self, case: Case, changes: Changes):
        self.case, self.changes = case, changes
        counts = case.counts
        read = np.ones_like(counts) if changes.get("lengths") == "ignored" else counts
        self.both = getattr(case.cell, "both_directions", False)
        if not self.both:
            self.ways = [_Way(case, case.parts, case.xs, read, case.weights, changes)]
            return
        forward, backward = case.parts
        half = case.weights.shape[-1] // 2
        back = np.ones_like(counts) if changes.get("padding") == "read" else counts
        self.turn = _turn(back)
        self.ways = [
            _Way(case, [forward], case.xs, read, case.weights[..., :half], changes),
            _Way(
                case, [backward], self.turn(case.xs), self.turn(back), self.turn(case.weights[..., half:]), changes
            ),
        ]

    def results(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The results of these names, but those that the changes leave without sense."""
        names, found = set(names), {}
        if any(not name.startswith("gradient.") and name not in (*DYNAMICS, "fixed_points") for name in names):
            found |= self._of_the_pass()
        if any(name.startswith("gradient.") for name in names):
            found |= self._gradients()
        if names & set(DYNAMICS):
            found |= self.ways[0].dynamics()
        if "fixed_points" in names:
            found["fixed_points"] = self.ways[0].rest()
        for left, right in self.changes.get("labels", ()):
            if left in found and right in found:
                found[left], found[right] = found[right], found[left]
        for name in self.changes.get("complements", ()):
            if name in found:
                found[name] = 1 - found[name]
        return {name: value for name, value in found.items() if name in names}

    def _in_time(self, k: int, value: np.ndarray) -> np.ndarray:
        """What way k has, in the order of the inputs."""
        return self.turn(value) if k else value

    def _of_the_pass(self) -> dict[str, np.ndarray]:
        found: dict[str, Any] = {}
        for k, way in enumerate(self.ways):
            for part, field in way.fields:
                values = np.stack([state[part, field] for state in way.states])
                found[f"{part}{field}_state"] = self._in_time(k, values)
                found[f"final_{part}{field}_state"] = values[-1]
            for part, name in way.gates[0]:
                found[f"{part}{name}"] = self._in_time(k, np.stack([gates[part, name] for gates in way.gates]))
        outputs = [self._in_time(k, way.outputs) for k, way in enumerate(self.ways)]
        found["outputs"] = np.concatenate(outputs, axis=-1)
        return found

    def _gradients(self) -> dict[str, np.ndarray]:
        found: dict[str, Any] = {}
        inputs = np.zeros_like(self.case.xs)
        for k, way in enumerate(self.ways):
            made = way.gradients()
            inputs = inputs + self._in_time(k, made.pop("gradient.inputs"))
            for name, value in made.items():
                in_time = name.endswith("_state") and not name.startswith("gradient.initial_")
                found[name] = self._in_time(k, value) if in_time else value
        return found | {"gradient.inputs": inputs}


def _turn(counts: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function that reverses arrays [T, B, ·] in time, each sequence within the steps that count."""
    order = np.tile(np.arange(len(counts))[:, None], counts.shape[1])
    for b, length in enumerate(counts.sum(axis=0)):
        order[:length, b] = order[:length, b][::-1]
    return lambda array: array[order, np.arange(counts.shape[1])]
