"""The family of cells, and their equations written down a second time, one step of one sequence at a time."""

import numpy as np
import pytest
from reference import logistic

import lstmx

VARIANTS = ("V", "NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP", "FGR")


def of_size(features, hidden):
    """One cell of every kind and option, by name."""
    made = {name: lstmx.LSTM.variant(name, features, hidden) for name in VARIANTS}
    made["gates alone"] = lstmx.LSTM(features, hidden, full_gate_recurrence=True)
    made["no gates"] = lstmx.LSTM(features, hidden, input_gate=False, forget_gate=False, output_gate=False)
    made["linear, coupled"] = lstmx.LSTM(
        features,
        hidden,
        coupled=True,
        output_gate=False,
        candidate_activation="identity",
        output_activation="identity",
    )
    made["projection"] = lstmx.LSTM(features, hidden, projection=max(1, hidden - 1))
    made["projection, peepholes"] = lstmx.LSTM(features, hidden, projection=max(1, hidden - 1), peepholes=True)
    made["projection, FGR"] = lstmx.LSTM(
        features, hidden, projection=hidden, peepholes=True, full_gate_recurrence=True
    )
    made["layer norm"] = lstmx.LSTM(features, hidden, layer_norm=True)
    made["layer norm, projection"] = lstmx.LSTM(
        features,
        hidden,
        layer_norm=True,
        projection=max(1, hidden - 1),
        coupled=True,
        output_activation="identity",
    )
    relu = {"candidate_activation": "relu", "output_activation": "relu"}
    made["LSTM, ReLU"] = lstmx.LSTM(features, hidden, **relu)
    made["LSTM, hard"] = lstmx.LSTM(features, hidden, gate_activation="hard_sigmoid")
    made["LSTM, hard 0.2"] = lstmx.LSTM(
        features, hidden, coupled=True, peepholes=True, gate_activation="hard_sigmoid_0.2"
    )
    made["FGR, ReLU, hard"] = lstmx.LSTM(
        features, hidden, full_gate_recurrence=True, peepholes=True, gate_activation="hard_sigmoid_0.2", **relu
    )
    made["GRU"] = lstmx.GRU(features, hidden)
    made["GRU before"] = lstmx.GRU(features, hidden, reset="before")
    made["GRU, ReLU"] = lstmx.GRU(features, hidden, candidate_activation="relu", gate_activation="hard_sigmoid")
    made["GRU before, hard"] = lstmx.GRU(features, hidden, "before", gate_activation="hard_sigmoid_0.2")
    made["MGU"] = lstmx.MGU(features, hidden)
    made["JANET"] = lstmx.JANET(features, hidden)
    made["JANET, beta 0"] = lstmx.JANET(features, hidden, beta=0.0)
    made["MinLSTM"] = lstmx.MinLSTM(features, hidden)
    made["MinLSTM, tanh"] = lstmx.MinLSTM(features, hidden, candidate_activation="tanh")
    made["MinGRU"] = lstmx.MinGRU(features, hidden)
    made["MinGRU, identity"] = lstmx.MinGRU(features, hidden, candidate_activation="identity")
    made["SLSTM"] = lstmx.SLSTM(features, hidden)
    made["SLSTM, exponential"] = lstmx.SLSTM(features, hidden, forget_activation="exponential")
    made["SimpleRNN"] = lstmx.SimpleRNN(features, hidden)
    made["ReLU"] = lstmx.SimpleRNN(features, hidden, activation="relu")
    return made


NAMES = tuple(of_size(1, 1))
FORMS = ("V", "FGR", "linear, coupled", "layer norm, projection", "GRU before", "JANET")


def one_of_each_form(names):
    """Cases of `parametrize`: a cell of each form of the recurrence, and the others where time is no matter."""
    return [name if name in FORMS else pytest.param(name, marks=pytest.mark.slow) for name in names]


NEW = tuple(name for name in NAMES if name not in ("NP", "GRU", "SimpleRNN", "ReLU"))


def draw(cell, batch=(), dtype="float64", seed=0, length=None):
    """Normal parameters, a state, inputs [length, *batch, D] or [*batch, D], and the source of more; NumPy."""
    draws = np.random.default_rng(seed)
    shapes = cell.parameter_shapes()
    params = type(shapes)(
        *(None if shape is None else draws.normal(0, 0.7, shape).astype(dtype) for shape in shapes)
    )
    fields = (draws.normal(size=(*batch, size)).astype(dtype) for size in cell.field_sizes)
    state = cell.state_type(*fields)
    if "normaliser" in state._fields:  # a sum of positive numbers
        state = state._replace(normaliser=0.5 + np.abs(state.normaliser))
    steps = () if length is None else (length,)
    return (
        params,
        state,
        draws.normal(size=(*steps, *batch, cell.input_size)).astype(dtype),
        draws,
    )


def activation(kind, a):
    """An activation by its word."""
    return {
        "identity": lambda: a,
        "tanh": lambda: np.tanh(a),
        "relu": lambda: np.maximum(a, 0),
        "sigmoid": lambda: logistic(a),
        "hard_sigmoid": lambda: np.clip(a / 6 + 0.5, 0, 1),
        "hard_sigmoid_0.2": lambda: np.clip(0.2 * a + 0.5, 0, 1),
    }[kind]()


def unchanged(name, value):
    return value


def equations(cell, params, state, x, change=unchanged):
    """One step of one sequence: the state after, and the activations by name.

    Each gate, `candidate` and state goes through `change(name, value)` where it is computed, and is read as that
    from there on; a gate that is the rest of another one is the rest of the unchanged.
    """
    kind = {lstmx.LSTM: _lstm, lstmx.GRU: _gru, lstmx.MGU: _mgu, lstmx.JANET: _janet, lstmx.SimpleRNN: _simple}
    kind |= {lstmx.MinLSTM: _min_lstm, lstmx.MinGRU: _min_gru, lstmx.SLSTM: _slstm}
    return kind[type(cell)](cell, params, state, x, change)


def _affine(cell, params, h, x, names):
    """X W + h U + b of each named block of columns."""
    columns = {name: slice(k * cell.hidden_size, (k + 1) * cell.hidden_size) for k, name in enumerate(names)}
    W, U, b = params.input_kernel, params.recurrent_kernel, params.bias
    return {name: x @ W[:, at] + h @ U[:, at] + b[at] for name, at in columns.items()}


def _normal(z):
    return (z - z.mean()) / np.sqrt(z.var() + 1e-5)


def _normalised_affine(cell, params, h, x, names):
    """LN(X W) ∘ gain + LN(h U) ∘ gain + b of each named block of columns."""
    whole = _normal(x @ params.input_kernel) * params.input_gain
    whole = whole + _normal(h @ params.recurrent_kernel) * params.recurrent_gain + params.bias
    return dict(zip(names, np.split(whole, len(names)), strict=True))


def _lstm(cell, params, state, x, change):
    H, h, c = cell.hidden_size, state.hidden, state.cell
    there = {"i": cell.input_gate, "f": cell.forget_gate and not cell.coupled, "g": True, "o": cell.output_gate}
    names = [name for name in "ifgo" if there[name]]
    a = (_normalised_affine if cell.layer_norm else _affine)(cell, params, h, x, names)
    gates = [name for name in "ifo" if there[name]]
    p = dict.fromkeys("ifo", np.zeros(H))
    if cell.peepholes:
        p |= {name: params.peephole[k * H : (k + 1) * H] for k, name in enumerate(gates)}
    if cell.full_gate_recurrence:
        R, before = params.gate_kernel, np.concatenate([state.input_gate, state.forget_gate, state.output_gate])
        for k, name in enumerate("ifo"):
            a[name] = a[name] + before @ R[:, k * H : (k + 1) * H]
    kind = cell.gate_activation
    i = activation(kind, a["i"] + p["i"] * c) if there["i"] else np.ones(H)
    f = activation(kind, a["f"] + p["f"] * c) if there["f"] else np.ones(H)
    f = change("forget_gate", 1 - i if cell.coupled else f)
    i = change("input_gate", i)
    g = change("candidate", activation(cell.candidate_activation, a["g"]))
    c = change("cell_state", f * c + i * g)
    o = change("output_gate", activation(kind, a["o"] + p["o"] * c) if there["o"] else np.ones(H))
    seen = _normal(c) * params.cell_gain + params.cell_shift if cell.layer_norm else c
    h = o * activation(cell.output_activation, seen)
    h = change("hidden_state", h @ params.projection if cell.projection else h)
    found = {"input_gate": i, "forget_gate": f, "candidate": g, "output_gate": o}
    if cell.full_gate_recurrence:
        kept = {"input_gate_state": i, "forget_gate_state": f, "output_gate_state": o}
        return cell.state_type(h, c, *(change(name, value) for name, value in kept.items())), found
    return cell.state_type(h, c), found


def _gru(cell, params, state, x, change):
    H, h = cell.hidden_size, state.hidden
    W, U, b = params.input_kernel, params.recurrent_kernel, params.bias
    gate = cell.gate_activation
    r = change("reset_gate", activation(gate, x @ W[:, :H] + h @ U[:, :H] + b[:H]))
    z = change("update_gate", activation(gate, x @ W[:, H : 2 * H] + h @ U[:, H : 2 * H] + b[H : 2 * H]))
    own = x @ W[:, 2 * H :] + b[2 * H :]
    if cell.reset == "after":
        own = own + r * (h @ U[:, 2 * H :] + params.candidate_bias)
    else:
        own = own + (r * h) @ U[:, 2 * H :]
    n = change("candidate", activation(cell.candidate_activation, own))
    h = change("hidden_state", (1 - z) * n + z * h)
    return cell.state_type(h), {"reset_gate": r, "update_gate": z, "candidate": n}


def _mgu(cell, params, state, x, change):
    H, h = cell.hidden_size, state.hidden
    W, U, b = params.input_kernel, params.recurrent_kernel, params.bias
    f = logistic(x @ W[:, :H] + h @ U[:, :H] + b[:H])
    kept, f = change("update_gate", 1 - f), change("forget_gate", f)
    n = change("candidate", np.tanh(x @ W[:, H:] + (f * h) @ U[:, H:] + b[H:]))
    h = change("hidden_state", kept * h + f * n)
    return cell.state_type(h), {"forget_gate": f, "update_gate": kept, "candidate": n}


def _janet(cell, params, state, x, change):
    a = _affine(cell, params, state.hidden, x, "fg")
    f, g = change("forget_gate", logistic(a["f"])), change("candidate", np.tanh(a["g"]))
    h = change("hidden_state", f * state.hidden + (1 - logistic(a["f"] - cell.beta)) * g)
    return cell.state_type(h), {"forget_gate": f, "candidate": g}


def _positive(kind, a):
    """The candidate activation of the minimal cells."""
    return {"positive": np.where(a >= 0, a + 0.5, logistic(a)), "identity": a, "tanh": np.tanh(a)}[kind]


def _min_lstm(cell, params, state, x, change):
    f, i, g = np.split(x @ params.input_kernel + params.bias, 3)
    f, i, g = logistic(f), logistic(i), _positive(cell.candidate_activation, g)
    i, f = change("input_gate", i / (f + i)), change("forget_gate", f / (f + i))
    g = change("candidate", g)
    h = change("hidden_state", f * state.hidden + i * g)
    return cell.state_type(h), {"input_gate": i, "forget_gate": f, "candidate": g}


def _min_gru(cell, params, state, x, change):
    z, g = np.split(x @ params.input_kernel + params.bias, 2)
    z, g = logistic(z), _positive(cell.candidate_activation, g)
    kept, z, g = change("update_gate", 1 - z), change("input_gate", z), change("candidate", g)
    h = change("hidden_state", kept * state.hidden + z * g)
    return cell.state_type(h), {"input_gate": z, "update_gate": kept, "candidate": g}


def _slstm(cell, params, state, x, change):
    a = _affine(cell, params, state.hidden, x, "ifzo")
    old = state.stabiliser + (np.log(logistic(a["f"])) if cell.forget_activation == "sigmoid" else a["f"])
    m = np.maximum(old, a["i"])
    i, f = np.exp(a["i"] - m), np.exp(old - m)
    n = f * state.normaliser + i
    found = {"input_gate": i / n, "forget_gate": f * state.normaliser / n}
    found |= {"candidate": np.tanh(a["z"]), "output_gate": logistic(a["o"])}
    found = {name: change(name, value) for name, value in found.items()}
    c = n * (found["forget_gate"] * state.cell / state.normaliser + found["input_gate"] * found["candidate"])
    c, n, m = change("cell_state", c), change("normaliser_state", n), change("stabiliser_state", m)
    return cell.state_type(change("hidden_state", found["output_gate"] * c / n), c, n, m), found


def _simple(cell, params, state, x, change):
    a = _affine(cell, params, state.hidden, x, "n")["n"]
    g = change("candidate", np.tanh(a) if cell.activation == "tanh" else np.maximum(a, 0))
    return cell.state_type(change("hidden_state", g)), {"candidate": g}
