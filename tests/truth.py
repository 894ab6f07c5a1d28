"""The truth behind `lstmx.conformance`: every case computed from the equations by mpmath, to 40 digits and more.

Nothing of lstmx is in here: sequences one by one, numbers one by one, with 100 digits. No derivative is written
down either: each is a central difference over 10⁻³⁵, whose error is about 10⁻⁷⁰. Everything that goes in is a
multiple of 1/64, so that float32 and float64 hold it exactly; what comes out is rounded to float64.

`python tests/truth.py` writes lstmx/conformance/cases.json, what the cases are, and cases.safetensors, the arrays.
"""

import json
import math
import sys
from pathlib import Path

import mpmath
import numpy as np
from mpmath import mp, mpf

FOLDER = Path(__file__).parents[1] / "lstmx" / "conformance"
DIGITS, STEP = 100, mpf(10) ** -35
D, H, T, B = 2, 3, 5, 2
NO_END = mpf("-inf")
LOST = mpf(10) ** -30  # a singular value that is 0, in units of the greatest

# ------------------------------------------------------------------------------------------------- the cases

LSTM = {"kind": "LSTM", "options": {"input_size": D, "hidden_size": H}}


def cell(kind, **options):
    return {"kind": kind, "options": {"input_size": D, "hidden_size": H, **options}}


def stack(*cells):
    return {"kind": "Stack", "options": {"cells": list(cells)}}


def both(one):
    return {"kind": "Bidirectional", "options": {"cell": one}}


HARD, HARD_2 = "hard_sigmoid", "hard_sigmoid_0.2"
CASES = {
    "lstm": (cell("LSTM"), {"start": "forget bias"}, "an LSTM from the zero state with a forget bias of 1"),
    "lstm, initial state": (cell("LSTM"), {}, "an LSTM with biases, from an initial state"),
    "lstm, peepholes": (cell("LSTM", peepholes=True), {}, "an LSTM whose gates see the cell state"),
    "lstm, projection": (cell("LSTM", projection=2), {}, "an LSTM whose output is projected"),
    "lstm, layer norm": (cell("LSTM", layer_norm=True), {}, "an LSTM with layer normalisation"),
    "lstm, coupled": (cell("LSTM", coupled=True), {}, "an LSTM whose forget gate is the rest of its input gate"),
    "lstm, hard sigmoid": (cell("LSTM", gate_activation=HARD), {}, "an LSTM with gates (a + 3) / 6, cut off"),
    "lstm, hard sigmoid 0.2": (cell("LSTM", gate_activation=HARD_2), {}, "an LSTM with gates 0.2 a + 0.5"),
    "lstm, padded": (cell("LSTM"), {"lengths": (5, 3)}, "an LSTM over sequences of 5 and 3 steps"),
    "gru, reset after": (cell("GRU"), {}, "a GRU whose reset gate comes after the product, as PyTorch's"),
    "gru, reset before": (cell("GRU", reset="before"), {}, "a GRU whose reset gate comes before the product"),
    "simple rnn": (cell("SimpleRNN"), {}, "a simple recurrent network with tanh"),
    "simple rnn, relu": (cell("SimpleRNN", activation="relu"), {}, "a simple recurrent network with ReLU"),
    "janet": (cell("JANET"), {}, "a JANET"),
    "mgu": (cell("MGU"), {}, "a minimal gated unit"),
    "minlstm": (cell("MinLSTM"), {}, "a minimal LSTM"),
    "mingru": (cell("MinGRU"), {}, "a minimal GRU"),
    "slstm": (cell("SLSTM"), {}, "an sLSTM, from a state that is not empty"),
    "two layers": (stack(cell("LSTM"), {"kind": "GRU", "options": {"input_size": H, "hidden_size": H}}), {},
                   "a GRU on an LSTM"),
    "both directions": (both(cell("LSTM")), {}, "an LSTM in both directions of time"),
    "both directions, padded": (both(cell("GRU")), {"lengths": (3, 5)},
                                "a GRU in both directions over sequences of 3 and 5 steps"),
}  # fmt: skip
STATES = {"LSTM": ("hidden", "cell"), "SLSTM": ("hidden", "cell", "normaliser", "stabiliser")}
BLOCKS = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1, "JANET": 2, "MGU": 2, "MinLSTM": 3, "MinGRU": 2, "SLSTM": 4}


def parts_of(description):
    """(prefix, kind, options, input size) of each cell."""
    kind, options = description["kind"], description["options"]
    if kind == "Stack":
        return [(f"layer {k}/", one["kind"], one["options"]) for k, one in enumerate(options["cells"])]
    if kind == "Bidirectional":
        return [
            (f"{way}/", options["cell"]["kind"], options["cell"]["options"]) for way in ("forward", "backward")
        ]
    return [("", kind, options)]


class Draws:
    """Multiples of 1/64 by a linear congruential generator."""

    def __init__(self, seed):
        self.now = seed
        for _ in range(5):
            self.next()

    def next(self):
        self.now = (1103515245 * self.now + 12345) % 2**31
        return self.now / 2**31

    def array(self, *shape, size=1.25):
        drawn = [round((2 * self.next() - 1) * size * 64) / 64 for _ in range(math.prod(shape))]
        return np.array(drawn, float).reshape(shape)


def given(name):
    """What a case gives: arrays by name, all multiples of 1/64."""
    description, notes, _ = CASES[name]
    draws = Draws(list(CASES).index(name) + 1)
    made = {}
    plain = notes.get("start") == "forget bias"
    for part, kind, options in parts_of(description):
        d, h, n = options["input_size"], options["hidden_size"], BLOCKS[kind]
        n -= bool(options.get("coupled"))
        seen = options.get("projection", h)
        made[f"params:{part}input_kernel"] = draws.array(d, n * h)
        if not kind.startswith("Min"):
            made[f"params:{part}recurrent_kernel"] = draws.array(seen, n * h)
        first, second = draws.array(n * h, size=0.75), draws.array(n * h, size=0.75)
        if plain:
            first, second = np.zeros(n * h), np.zeros(n * h)
            first[h : 2 * h] = 1
        two = kind in ("LSTM", "GRU", "SimpleRNN") and not plain
        if two:
            made[f"biases:{part}input_bias"], made[f"biases:{part}recurrent_bias"] = first, second
        bias = first + second if two else first
        if kind == "GRU" and options.get("reset") != "before":
            bias[2 * h :] = first[2 * h :]
            made[f"params:{part}candidate_bias"] = second[2 * h :].copy()
        made[f"params:{part}bias"] = bias
        if options.get("peepholes"):
            made[f"params:{part}peephole"] = draws.array(3 * h)
        if options.get("projection"):
            made[f"params:{part}projection"] = draws.array(h, seen)
        if options.get("layer_norm"):
            for gain, size in (("recurrent_gain", n * h), ("input_gain", n * h), ("cell_gain", h)):
                made[f"params:{part}{gain}"] = 1 + draws.array(size, size=0.5)
            made[f"params:{part}cell_shift"] = draws.array(h, size=0.5)
        for field in STATES.get(kind, ("hidden",)):
            start = draws.array(B, seen if field == "hidden" else h, size=0.9)
            start = 1 + abs(start) if field == "normaliser" else 0 * start if plain else start
            made[f"state:{part}{field}_state"] = start
    made["xs"] = draws.array(T, B, D, size=1.5)
    made["weights"] = draws.array(T, B, output_size(description))
    made["x"] = draws.array(D, size=0.5)
    if "lengths" in notes:
        made["lengths"] = np.array(notes["lengths"], np.int64)
        for b, length in enumerate(notes["lengths"]):
            made["weights"][length:, b] = 0
    return made


def output_size(description):
    part = parts_of(description)[-1][2]
    return part.get("projection", part["hidden_size"]) * (2 if description["kind"] == "Bidirectional" else 1)


# --------------------------------------------------------------------------------------------- the equations


def sigma(m, a):
    return 1 / (1 + m.exp(-a))


def gate(m, word, a):
    if word == HARD:
        return min(max(a / 6 + m.one / 2, m.zero), m.one)
    if word == HARD_2:
        return min(max(a / 5 + m.one / 2, m.zero), m.one)
    return sigma(m, a)


class Floats:
    """Python's own numbers, with which fixed points are looked for before mpmath has them."""

    exp, tanh, log, sqrt = map(staticmethod, (math.exp, math.tanh, math.log, math.sqrt))
    zero, one = 0.0, 1.0
    small = 10.0**-5  # in the variance of a layer normalisation
    number = float


class Digits:
    """Numbers of mpmath."""

    exp, tanh, log, sqrt = map(staticmethod, (mp.exp, mp.tanh, mp.log, mp.sqrt))
    zero, one = mpf(0), mpf(1)
    number = mpf

    @property
    def small(self):
        return mpf(10) ** -5


def times(vector, kernel):
    """h U."""
    return [sum(v * row[k] for v, row in zip(vector, kernel, strict=True)) for k in range(len(kernel[0]))]


def plus(*vectors):
    return [sum(numbers) for numbers in zip(*vectors, strict=True)]


def normal(m, z):
    mean = sum(z) / len(z)
    variance = sum((x - mean) ** 2 for x in z) / len(z)
    return [(x - mean) / m.sqrt(variance + m.small) for x in z]


def blocks(vector, h):
    return [vector[k : k + h] for k in range(0, len(vector), h)]


def one_step(m, kind, options, p, state, x, nudge):
    """The state after a step of one cell, and its gates; `nudge(field, values)` may move a state as it is made."""
    h, size = state["hidden"], options["hidden_size"]
    if kind.startswith("Min"):
        a = plus(times(x, p["input_kernel"]), p["bias"])
    elif options.get("layer_norm"):
        from_h = [
            u * v for u, v in zip(normal(m, times(h, p["recurrent_kernel"])), p["recurrent_gain"], strict=True)
        ]
        from_x = [u * v for u, v in zip(normal(m, times(x, p["input_kernel"])), p["input_gain"], strict=True)]
        a = plus(from_h, from_x, p["bias"])
    else:
        a = plus(times(x, p["input_kernel"]), times(h, p["recurrent_kernel"]), p["bias"])
    a, units = blocks(a, size), range(size)
    if kind == "LSTM":
        return lstm(m, options, p, state, a, units, nudge)
    if kind == "SLSTM":
        return slstm(m, state, a, units, nudge)
    if kind == "GRU":
        word = options.get("gate_activation", "sigmoid")
        r = [gate(m, word, v) for v in a[0]]
        z = [gate(m, word, v) for v in a[1]]
        own = blocks(plus(times(x, p["input_kernel"]), p["bias"]), size)[2]
        columns = [row[2 * size :] for row in p["recurrent_kernel"]]
        if options.get("reset") == "before":
            product = times([r[k] * h[k] for k in units], columns)
        else:
            q = plus(times(h, columns), p["candidate_bias"])
            product = [r[k] * q[k] for k in units]
        n = [m.tanh(own[k] + product[k]) for k in units]
        after = [(1 - z[k]) * n[k] + z[k] * h[k] for k in units]
        return {"hidden": nudge("hidden", after)}, {"reset_gate": r, "update_gate": z, "candidate": n}
    if kind == "SimpleRNN":
        relu = options.get("activation") == "relu"
        after = [max(v, m.zero) if relu else m.tanh(v) for v in a[0]]
        return {"hidden": nudge("hidden", after)}, {"candidate": after}
    if kind == "JANET":
        f, g = [sigma(m, v) for v in a[0]], [m.tanh(v) for v in a[1]]
        into = [1 - sigma(m, v - 1) for v in a[0]]
        after = [f[k] * h[k] + into[k] * g[k] for k in units]
        return {"hidden": nudge("hidden", after)}, {"forget_gate": f, "candidate": g}
    if kind == "MGU":
        f = [sigma(m, v) for v in a[0]]
        own = blocks(plus(times(x, p["input_kernel"]), p["bias"]), size)[1]
        columns = [row[size:] for row in p["recurrent_kernel"]]
        n = [m.tanh(v) for v in plus(own, times([f[k] * h[k] for k in units], columns))]
        after = [(1 - f[k]) * h[k] + f[k] * n[k] for k in units]
        gates = {"forget_gate": f, "update_gate": [1 - v for v in f], "candidate": n}
        return {"hidden": nudge("hidden", after)}, gates
    g = [v + m.one / 2 if v >= 0 else sigma(m, v) for v in a[-1]]
    if kind == "MinLSTM":
        f, i = [sigma(m, v) for v in a[0]], [sigma(m, v) for v in a[1]]
        f, i = [f[k] / (f[k] + i[k]) for k in units], [i[k] / (f[k] + i[k]) for k in units]
        gates = {"input_gate": i, "forget_gate": f, "candidate": g}
    else:
        i = [sigma(m, v) for v in a[0]]
        f = [1 - v for v in i]
        gates = {"input_gate": i, "update_gate": f, "candidate": g}
    return {"hidden": nudge("hidden", [f[k] * h[k] + i[k] * g[k] for k in units])}, gates


def lstm(m, options, p, state, a, units, nudge):
    word, c, size = options.get("gate_activation", "sigmoid"), state["cell"], len(units)
    if options.get("coupled"):
        a = [a[0], [-v for v in a[0]], a[1], a[2]]
    peephole = blocks(p["peephole"], size) if options.get("peepholes") else [[m.zero] * size] * 3
    i = [gate(m, word, a[0][k] + peephole[0][k] * c[k]) for k in units]
    f = [gate(m, word, a[1][k] + peephole[1][k] * c[k]) for k in units]
    g = [m.tanh(v) for v in a[2]]
    c = nudge("cell", [f[k] * c[k] + i[k] * g[k] for k in units])
    o = [gate(m, word, a[3][k] + peephole[2][k] * c[k]) for k in units]
    seen = c
    if options.get("layer_norm"):
        seen = [u * v + w for u, v, w in zip(normal(m, c), p["cell_gain"], p["cell_shift"], strict=True)]
    after = [o[k] * m.tanh(seen[k]) for k in units]
    if options.get("projection"):
        after = times(after, p["projection"])
    gates = {"input_gate": i, "forget_gate": f, "candidate": g, "output_gate": o}
    return {"hidden": nudge("hidden", after), "cell": c}, gates


def slstm(m, state, a, units, nudge):
    old = [m.log(sigma(m, a[1][k])) + state["stabiliser"][k] for k in units]
    top = nudge("stabiliser", [max(old[k], a[0][k]) for k in units])
    into, kept = [m.exp(a[0][k] - top[k]) for k in units], [m.exp(old[k] - top[k]) for k in units]
    z, o = [m.tanh(v) for v in a[2]], [sigma(m, v) for v in a[3]]
    c = nudge("cell", [kept[k] * state["cell"][k] + into[k] * z[k] for k in units])
    n = nudge("normaliser", [kept[k] * state["normaliser"][k] + into[k] for k in units])
    after = nudge("hidden", [o[k] * c[k] / n[k] for k in units])
    shares = [into[k] / (kept[k] * state["normaliser"][k] + into[k]) for k in units]
    gates = {"input_gate": shares, "forget_gate": [1 - v for v in shares], "candidate": z, "output_gate": o}
    return {"hidden": after, "cell": c, "normaliser": n, "stabiliser": top}, gates


# ------------------------------------------------------------------------------------------------- the passes


def still(place, values):
    return values


class Network:
    """One direction of time of a case: cells on one another."""

    def __init__(self, m, parts, params):
        self.m, self.parts = m, parts
        self.own = {part: {} for part, _, _ in parts}
        for key, value in params.items():
            part, _, name = key.rpartition("/")
            if (prefix := f"{part}/" if part else "") in self.own:
                self.own[prefix][name] = value

    def step(self, state, x, nudge=still):
        """The state after, by (part, field), and the gates by part."""
        after, gates = {}, {}
        for part, kind, options in self.parts:
            mine = {field: value for (prefix, field), value in state.items() if prefix == part}
            moved, found = one_step(
                self.m, kind, options, self.own[part], mine, x, lambda f, v, part=part: nudge((part, f), v)
            )
            after |= {(part, field): moved[field] for field in mine}
            gates |= {(part, name): value for name, value in found.items()}
            x = moved["hidden"]
        return after, gates

    def run(self, state, xs, nudge=still):
        """The states after each step, and the gates."""
        made = []
        for t, x in enumerate(xs):
            state, gates = self.step(state, x, lambda place, v, t=t: nudge((t, *place), v))
            made.append((state, gates))
        return made

    def outputs(self, made):
        return [state[self.parts[-1][0], "hidden"] for state, _ in made]


def tree(m, array):
    """An array as lists of numbers."""
    return [tree(m, part) for part in array] if np.ndim(array) else m.number(float(array))


def pack(state):
    return [v for values in state.values() for v in values]


def unpack(packed, like):
    numbers = iter(packed)
    return {place: [next(numbers) for _ in values] for place, values in like.items()}


def moved(values, k, by):
    """A list with one number moved."""
    return [v + by if j == k else v for j, v in enumerate(values)]


def differences(function, size, step):
    """∂function/∂(number k) for each k: function takes (k, by) and gives a list of numbers."""
    found = []
    for k in range(size):
        up, down = function(k, step), function(k, -step)
        found.append([(a - b) / (2 * step) for a, b in zip(up, down, strict=True)])
    return found


class Sequence:
    """One sequence in one direction of time, and everything about it."""

    def __init__(self, parts, params, state, xs, weights, step=None):
        self.m, self.step = Digits(), STEP if step is None else step
        self.parts, self.params, self.state, self.xs, self.weights = parts, params, state, xs, weights
        self.network = Network(self.m, parts, params)

    def loss(self, network=None, state=None, xs=None, nudge=still):
        network = network or self.network
        made = network.run(state or self.state, xs or self.xs, nudge)
        terms = zip(network.outputs(made), self.weights, strict=True)
        return [sum(a * b for values, weights in terms for a, b in zip(values, weights, strict=True))]

    def of_inputs(self):
        def loss(k, by):
            t, d = divmod(k, D)
            return self.loss(xs=[moved(x, d, by) if s == t else x for s, x in enumerate(self.xs)])

        flat = differences(loss, len(self.xs) * D, self.step)
        return blocks([v for (v,) in flat], D)

    def of_start(self):
        def loss(k, by):
            return self.loss(state=unpack(moved(pack(self.state), k, by), self.state))

        return unpack([v for (v,) in differences(loss, len(pack(self.state)), self.step)], self.state)

    def of_states(self, field):
        """The total ∂L/∂(a field after step t), [T, size]: moved where it is made."""
        size = len(self.state[field])

        def loss(k, by):
            t, j = divmod(k, size)
            return self.loss(nudge=lambda place, v: moved(v, j, by) if place == (t, *field) else v)

        return blocks([v for (v,) in differences(loss, len(self.xs) * size, self.step)], size)

    def of_parameter(self, name, array):
        flat = [v for row in array for v in row] if isinstance(array[0], list) else array

        def loss(k, by):
            values = moved(flat, k, by)
            values = blocks(values, len(array[0])) if isinstance(array[0], list) else values
            return self.loss(network=Network(self.m, self.parts, self.params | {name: values}))

        return [v for (v,) in differences(loss, len(flat), self.step)]

    def jacobians(self):
        """[T][row][column]: ∂s_t/∂s_{t-1}."""
        found, before = [], self.state
        for x, (after, _) in zip(self.xs, self.network.run(self.state, self.xs), strict=True):

            def step(k, by, before=before, x=x):
                return pack(self.network.step(unpack(moved(pack(before), k, by), before), x)[0])

            columns = differences(step, len(pack(before)), self.step)
            found.append([list(row) for row in zip(*columns, strict=True)])
            before = after
        return found


def exponents(jacobians):
    """(1/T) ln of the singular values of J_T … J_1, and of |R_ii| of its QR decomposition from the identity."""
    matrices = [mpmath.matrix(one) for one in jacobians]
    product = mpmath.eye(matrices[0].rows)
    for one in matrices:
        product = one * product
    values = sorted((abs(v) for v in mp.svd_r(product, compute_uv=False)), reverse=True)
    orthogonal, logs = mpmath.eye(product.rows), [mpf(0)] * product.rows
    for one in matrices:
        orthogonal, r = mp.qr(one * orthogonal)
        top = max(abs(r[k, k]) for k in range(r.rows))
        for k in range(r.rows):
            logs[k] += mp.log(abs(r[k, k])) if abs(r[k, k]) > LOST * top else NO_END
    singular = [mp.log(v) if v > LOST * values[0] else NO_END for v in values]
    return [[v / len(matrices) for v in one] for one in (singular, logs)]


# ----------------------------------------------------------------------------------------------- fixed points


def fixed_points(parts, params, like, x, starts=60):
    """All points found where a step under the constant input x leaves the state where it is, [N][S]."""
    plain = Network(Floats(), parts, {name: tree(Floats(), value) for name, value in params.items()})
    given = tree(Floats(), x)
    draws, found = Draws(99), []
    for _ in range(starts):
        start = {}
        for (part, field), values in like.items():
            drawn = draws.array(len(values), size=3).tolist()
            start[part, field] = [1 + abs(v) for v in drawn] if field == "normaliser" else drawn
        point = newton(plain, pack(start), start, given, 60, 1e-6, 1e-11)
        if point is None or max(map(abs, point)) > 12:  # where a gate rounds to 1 everything is at rest
            continue
        if all(max(abs(a - b) for a, b in zip(point, o, strict=True)) > 1e-6 for o in found):
            found.append(point)
    exact = Network(Digits(), parts, {name: tree(Digits(), value) for name, value in params.items()})
    polished = [
        newton(exact, [mpf(v) for v in point], like, tree(Digits(), x), 12, STEP, mpf(10) ** -80)
        for point in found
    ]
    assert None not in polished
    return sorted(polished)


def newton(network, point, like, x, iterations, step, tolerance):
    """The point of rest that Newton's method with halved steps reaches, or None."""

    def residual(packed):
        return [a - b for a, b in zip(pack(network.step(unpack(packed, like), x)[0]), packed, strict=True)]

    try:
        off = residual(point)
        for _ in range(iterations):
            if max(map(abs, off)) < tolerance:
                return point
            slopes = differences(lambda k, by, at=point: residual(moved(at, k, by)), len(point), step)
            move = solved([list(row) for row in zip(*slopes, strict=True)], off)
            for halvings in range(12):
                there = [a - b / 2**halvings for a, b in zip(point, move, strict=True)]
                after = residual(there)
                if sum(v * v for v in after) < sum(v * v for v in off):
                    break
            point, off = there, after
    except (OverflowError, ZeroDivisionError, ValueError):
        pass
    return None


def solved(matrix, right):
    """Gauss' elimination with pivots."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    n = len(rows)
    for k in range(n):
        top = max(range(k, n), key=lambda r: abs(rows[r][k]))
        rows[k], rows[top] = rows[top], rows[k]
        for r in range(k + 1, n):
            share = rows[r][k] / rows[k][k]
            rows[r] = [a - share * b for a, b in zip(rows[r], rows[k], strict=True)]
    found = [0] * n
    for k in reversed(range(n)):
        found[k] = (rows[k][n] - sum(rows[k][j] * found[j] for j in range(k + 1, n))) / rows[k][k]
    return found


# ------------------------------------------------------------------------------------------------ the results


def truth(name, step=None):
    """Everything that is asked of a case, numbers of mpmath in nested lists or arrays of objects, by name."""
    description, _, _ = CASES[name]
    data = given(name)
    every = parts_of(description)
    turned = description["kind"] == "Bidirectional"
    lengths = data.get("lengths", np.full(B, T))
    params = {key.removeprefix("params:"): value for key, value in data.items() if key.startswith("params:")}
    numbers = {key: tree(Digits(), value) for key, value in params.items()}
    found, whole = {}, (T, B)
    found["outputs"] = empty(*whole, output_size(description))
    found["gradient.inputs"] = empty(*whole, D)
    directions = [[part] for part in every] if turned else [every]
    width = output_size(description) // len(directions)
    for way, parts in enumerate(directions):
        columns = slice(way * width, (way + 1) * width)
        for b in range(B):
            steps = list(range(lengths[b]))[:: -1 if way else 1]
            state = {
                (part, key): tree(Digits(), data[f"state:{part}{key}_state"][b])
                for part, kind, _ in parts
                for key in STATES.get(kind, ("hidden",))
            }
            xs = [tree(Digits(), data["xs"][t, b]) for t in steps]
            weights = [tree(Digits(), data["weights"][t, b, columns]) for t in steps]
            one = Sequence(parts, numbers, state, xs, weights, step)
            made = one.network.run(state, xs)
            found["outputs"][steps, b, columns] = one.network.outputs(made)
            found["gradient.inputs"][steps, b] += np.array(one.of_inputs(), object)
            start = one.of_start()
            for part, field in state:
                put(found, f"{part}{field}_state", whole, b, steps, [s[part, field] for s, _ in made])
                put(found, f"gradient.{part}{field}_state", whole, b, steps, one.of_states((part, field)))
                put(found, f"final_{part}{field}_state", (B,), b, None, made[-1][0][part, field])
                put(found, f"gradient.initial_{part}{field}_state", (B,), b, None, start[part, field])
            for part, gate_name in made[0][1]:
                put(found, f"{part}{gate_name}", whole, b, steps, [g[part, gate_name] for _, g in made])
            for key, value in params.items():
                if any(key.startswith(part) for part, _, _ in parts):
                    total = found.setdefault(f"gradient.{key}", empty(*value.shape))
                    total += np.array(one.of_parameter(key, numbers[key]), object).reshape(value.shape)
            if not turned and "lengths" not in data:
                jacobians = one.jacobians()
                put(found, "jacobians", whole, b, steps, jacobians)
                singular, by_qr = exponents(jacobians)
                put(found, "finite_time_exponents", (B,), b, None, singular)
                put(found, "lyapunov_exponents", (B,), b, None, by_qr)
    if not turned and "lengths" not in data:
        found["fixed_points"] = np.array(fixed_points(every, params, state, data["x"]), object)
    return found


def empty(*shape):
    return np.full(shape, mpf(0), object)


def put(found, name, lead, b, steps, values):
    """Put the values of one sequence, [T][…] or […], into an array [T, B, …] or [B, …]."""
    values = np.array(values, object)
    shape = values.shape if steps is None else values.shape[1:]
    array = found.setdefault(name, empty(*lead, *shape))
    array[(b,) if steps is None else (steps, b)] = values


def write(folder=FOLDER):
    """Write both files."""
    from safetensors.numpy import save_file

    arrays, told = {}, {}
    for name, (description, _, words) in CASES.items():
        told[name] = {"words": words, "cell": description}
        arrays |= {f"{name}:{key}": np.ascontiguousarray(value) for key, value in given(name).items()}
        exact = truth(name)
        arrays |= {f"{name}:truth:{key}": rounded(value) for key, value in exact.items()}
        print(name, {key: value.shape for key, value in exact.items() if key == "fixed_points"}, flush=True)
    save_file(arrays, folder / "cases.safetensors", {"format": "1"})
    (folder / "cases.safetensors").chmod(0o644)
    (folder / "cases.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def rounded(values):
    """To float64; what is 0 to 40 digits is 0."""
    return np.vectorize(lambda v: 0.0 if abs(v) < mpf(10) ** -40 else float(v), otypes=[float])(values)


mp.dps = DIGITS
if __name__ == "__main__":
    sys.exit(write())
