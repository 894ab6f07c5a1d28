"""The kit: its truth, the mistakes that it names, what it refuses, and who passes it."""

import dataclasses
import importlib.resources
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import truth
from reference import lcg

import lstmx
from lstmx import conformance
from lstmx.app.cli import main
from lstmx.conformance.equations import World
from lstmx.conformance.mistakes import forms_of, group_of

CASES = conformance.cases()


def told(name, **answers):
    """An implementation that answers one case, with the truth but for some results."""
    return lambda case: dict(case.truth) | answers if case.name == name else None


# -------------------------------------------------------------------------------------------------- the truth


def same_as_the_files(name):
    case, exact = CASES[name], truth.truth(name)
    assert set(exact) == set(case.truth)
    for key, value in exact.items():
        np.testing.assert_array_equal(truth.rounded(value), case.truth[key], err_msg=key)
    given = truth.given(name)
    np.testing.assert_array_equal(given["xs"], case.xs)
    for key, value in case.params.items():
        np.testing.assert_array_equal(given[f"params:{key}"], value)


def test_the_files_hold_what_the_script_computes():
    same_as_the_files("simple rnn, relu")
    told_ = json.loads((importlib.resources.files("lstmx.conformance") / "cases.json").read_text())
    assert told_ == {name: {"words": words, "cell": cell} for name, (cell, _, words) in truth.CASES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm, projection", "slstm", "both directions, padded"])
def test_more_of_the_files_is_what_the_script_computes(name):
    same_as_the_files(name)


def test_the_script_computes_what_other_frameworks_do():
    """An LSTM of PyTorch's, on portable numbers."""
    params = {"input_kernel": lcg((12, 2), 1, 0.5).T, "recurrent_kernel": lcg((12, 3), 2, 0.5).T}
    params["bias"] = lcg((12,), 3, 0.5)
    numbers = {name: truth.tree(truth.Digits(), value) for name, value in params.items()}
    network = truth.Network(truth.Digits(), [("", "LSTM", {"hidden_size": 3})], numbers)
    start = {("", "hidden"): [truth.mpf(0)] * 3, ("", "cell"): [truth.mpf(0)] * 3}
    xs = truth.tree(truth.Digits(), np.sin(0.7 * np.arange(1, 13)).reshape(6, 2))
    ended = network.run(start, xs)[-1][0]
    hidden = [0.0775500811700730, 0.0586843254383053, 0.0019615827293853]
    cell = [0.1712758648102230, 0.1208141320736193, 0.0043422408616975]
    np.testing.assert_allclose(np.array(ended["", "hidden"], float), hidden, atol=1e-15)
    np.testing.assert_allclose(np.array(ended["", "cell"], float), cell, atol=1e-15)


def test_the_truth_has_forty_digits():
    """Another precision and another step of the differences give the same 40 digits."""
    found = truth.truth("mingru")
    with truth.mp.workdps(140):
        finer = truth.truth("mingru", step=truth.mpf(10) ** -50)
    for key, value in finer.items():
        apart = np.vectorize(lambda a, b: 0 if a == b else abs(a - b), otypes=[object])(value, found[key])
        assert apart.max() < truth.mpf(10) ** -40, key


def test_the_files_are_small_and_exact_in_float32():
    folder = importlib.resources.files("lstmx.conformance")
    sizes = [len((folder / name).read_bytes()) for name in ("cases.json", "cases.safetensors")]
    assert sum(sizes) < 10**6
    assert len(CASES) >= 20
    for case in CASES.values():
        for value in (case.xs, case.weights, case.x, *case.params.values(), *case.state.values()):
            np.testing.assert_array_equal(value, value.astype(np.float32))
        for part, cell in case.parts:
            inside = case.params.get(f"{part}candidate_bias")
            if case.two_biases:
                both = case.two_biases[f"{part}input_bias"] + case.two_biases[f"{part}recurrent_bias"]
                bias = case.params[f"{part}bias"].copy()
                if inside is not None:
                    bias[-cell.hidden_size :] += inside
                np.testing.assert_array_equal(both, bias)


def test_a_case_gives_arrays_of_its_own():
    conformance.cases()["mgu"].params["bias"][:] = 7
    assert not np.any(conformance.cases()["mgu"].params["bias"] == 7)

    def spoils(case):
        case.truth["outputs"][:] = case.xs[:] = 0
        return {"outputs": case.truth["outputs"]}

    assert not conformance.check_against(spoils, ["mgu"]).passed


def test_the_plain_equations_give_the_truth():
    """By complex steps in NumPy, where the script takes differences in mpmath."""

    def plain(case):
        return World(case, {}).results([name for name in case.truth if name != "fixed_points"])

    found = conformance.check_against(plain)
    assert found.passed, found
    assert sum(len(case.compared) for case in found.cases) > 400
    for name in ("lstm", "slstm", "two layers"):
        assert conformance.check_against(lambda case: World(case, {}).results(["fixed_points"]), [name]).passed


# -------------------------------------------------------------------------------------- an implementation apart


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


class Planted:
    """An LSTM, a GRU and their passes in both directions, written here, with a mistake."""

    def __init__(self, mistake=""):
        self.mistake = mistake

    def step(self, kind, reset, p, h, c, x):
        W, U, b = p["input_kernel"], p["recurrent_kernel"], p["bias"]
        if kind == "LSTM":
            i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
            if self.mistake == "swapped gates":
                g, o = o, g
            f = f + {"forget bias missing": -1, "forget bias added twice": 1}.get(self.mistake, 0)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            return sigmoid(o) * np.tanh(c), c, {"forget_gate": sigmoid(f), "candidate": np.tanh(g)}
        n = h.shape[-1]
        if self.mistake.endswith(f" for {reset}"):
            reset = {"before": "after", "after": "before"}[reset]
        inside = p.get("candidate_bias", 0)
        r, z = sigmoid(x @ W + h @ U + b)[..., : 2 * n].reshape(*h.shape[:-1], 2, n).swapaxes(0, -2)
        product = r * (h @ U[:, 2 * n :] + inside) if reset == "after" else (r * h) @ U[:, 2 * n :] + inside
        made = np.tanh((x @ W + b)[..., 2 * n :] + product)
        return (1 - z) * made + z * h, c, {"reset_gate": r, "candidate": made}

    def run(self, case, part, cell, xs):
        p = {name.removeprefix(part): value for name, value in case.params.items() if name.startswith(part)}
        if self.mistake == "one bias of two" and case.two_biases:
            p["bias"] = case.two_biases[f"{part}input_bias"]
            if "candidate_bias" in p:
                p["candidate_bias"] = 0 * p["candidate_bias"]
        h = case.state[f"{part}hidden_state"]
        c = case.state.get(f"{part}cell_state", h)
        if self.mistake == "(c, h) for (h, c)":
            h, c = c, h
        made = {"hidden_state": [], "cell_state": []}
        for x in xs:
            h, c, gates = self.step(type(cell).__name__, getattr(cell, "reset", None), p, h, c, x)
            for name, value in {"hidden_state": h, "cell_state": c, **gates}.items():
                made.setdefault(name, []).append(value)
        made = {name: np.stack(values) for name, values in made.items()}
        return made if type(cell).__name__ == "LSTM" else {k: v for k, v in made.items() if k != "cell_state"}

    def __call__(self, case):
        kinds = {type(cell).__name__ for _, cell in case.parts}
        plain = all(not getattr(cell, "peepholes", 0) for _, cell in case.parts)
        options = [cell.gate_activation == "sigmoid" for _, cell in case.parts if hasattr(cell, "gate_activation")]
        if kinds not in ({"LSTM"}, {"GRU"}) or not plain or not all(options) or case.name in NOT_PLANTED:
            return None
        lengths = np.full(case.xs.shape[1], len(case.xs)) if case.lengths is None else case.lengths
        found = {}
        for part, cell in case.parts:
            read = np.copy(lengths)
            if self.mistake == "padded backward direction":
                read[:] = len(case.xs)
            back = part.startswith("backward")
            for b, end in enumerate(read if back else lengths):
                turn = slice(end - 1, None, -1) if back else slice(0, end)
                if back and end == len(case.xs):
                    turn = slice(None, None, -1)
                made = self.run(case, part, cell, case.xs[turn])
                for name, values in made.items():
                    whole = found.setdefault(f"{part}{name}", np.zeros((*case.xs.shape[:2], values.shape[-1])))
                    whole[turn, b] = values[:, b]
                    if name.endswith("_state"):
                        last = found.setdefault(f"final_{part}{name}", np.zeros((len(lengths), values.shape[-1])))
                        last[b] = values[-1, b]
        outputs = [found[f"{part}hidden_state"] for part, _ in case.parts]
        return found | {"outputs": np.concatenate(outputs, axis=-1)}


NOT_PLANTED = ("lstm, projection", "lstm, layer norm", "lstm, coupled", "two layers")


def derived(mistake):
    """Gradients and exponents of the SimpleRNN with tanh in closed form, with a mistake."""

    def implementation(case):
        if case.name != "simple rnn":
            return None
        W, U, b = (case.params[name] for name in ("input_kernel", "recurrent_kernel", "bias"))
        h, states = case.state["hidden_state"], []
        for x in case.xs:
            h = np.tanh(x @ W + h @ U + b)
            states.append(h)
        slopes = 1 - np.stack(states) ** 2  # [T, B, H]
        J = slopes[..., :, None] * U.T
        cotangents, later = [], 0
        for t in reversed(range(len(case.xs))):
            later = case.weights[t] + later
            cotangents.append(later)
            later = (slopes[t] * later) @ U.T * (mistake != "detached h")
        d = np.stack(cotangents[::-1])
        before = np.concatenate([case.state["hidden_state"][None], np.stack(states)[:-1]])
        exponents = []
        for b in range(J.shape[1]):
            product = np.eye(J.shape[-1])
            for t in range(len(J)):
                order = mistake == "Jacobians in the wrong order"
                product = product @ J[t, b] if order else J[t, b] @ product
            exponents.append(np.log(np.linalg.svd(product, compute_uv=False)) / len(J))
        return {
            "gradient.hidden_state": d,
            "gradient.recurrent_kernel": np.einsum("tbi,tbj->ij", before, d * slopes),
            "finite_time_exponents": np.array(exponents),
        }

    return implementation


PLANTED = [
    "swapped gates",
    "forget bias missing",
    "forget bias added twice",
    "reset before for after",
    "reset after for before",
    "one bias of two",
    "(c, h) for (h, c)",
    "padded backward direction",
]


def test_an_implementation_apart_from_the_kit_passes():
    found = conformance.check_against(Planted())
    assert found.passed, found
    assert [case.name for case in found.cases if case.compared] == [
        *("lstm", "lstm, initial state", "lstm, padded", "gru, reset after", "gru, reset before"),
        *("both directions", "both directions, padded"),
    ]
    assert conformance.check_against(derived("")).passed
    assert "7 of 7 cases are right" in str(found)
    assert "mgu: not answered" in str(found)


@pytest.mark.sample(4)
@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_named(mistake):
    found = conformance.check_against(Planted(mistake))
    assert list(found.mistakes) == [mistake], found
    assert not found.passed
    assert not found.unexplained
    assert f"MISTAKE: {mistake}" in str(found)


@pytest.mark.parametrize("mistake", ["detached h", "Jacobians in the wrong order"])
def test_a_planted_mistake_of_a_derivative_is_named(mistake):
    found = conformance.check_against(derived(mistake))
    assert list(found.mistakes) == [mistake], found
    assert not found.unexplained


def test_two_planted_mistakes_are_both_named():
    def both(case):
        answer = Planted("forget bias added twice")(case)
        if case.name.startswith("lstm"):
            h, c = answer["final_hidden_state"], answer["final_cell_state"]
            answer |= {"final_hidden_state": c, "final_cell_state": h}
        return answer

    found = conformance.check_against(both, ["lstm, initial state", "gru, reset after"])
    assert set(found.mistakes) == {"forget bias added twice", "(c, h) for (h, c)"}
    assert found["gru, reset after"].passed

    def apart(case):
        name = "one bias of two" if case.name.startswith("gru") else "swapped gates"
        return Planted(name)(case)

    found = conformance.check_against(apart, ["lstm, initial state", "gru, reset after"])
    assert found["gru, reset after"].mistakes == ("one bias of two",)
    assert found["lstm, initial state"].mistakes == ("swapped gates",)


def by_autodiff(mistake):
    """All gradients of an LSTM, its Jacobians and exponents by JAX, with a mistake."""

    def step(p, state, x, moved):
        h, c = state
        seen = jax.lax.stop_gradient(h) if mistake == "detached h" else h
        U = p["recurrent_kernel"]
        if mistake == "transposed recurrent kernel":
            U = jnp.concatenate([block.T for block in jnp.split(U, 4, axis=-1)], axis=-1)
        i, f, g, o = jnp.split(x @ p["input_kernel"] + seen @ U + p["bias"], 4, axis=-1)
        if mistake == "swapped gates":
            i, f = f, i
        if mistake == "forget bias missing":
            f = f - jnp.ones(())
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g) + moved[1]
        return jax.nn.sigmoid(o) * jnp.tanh(c) + moved[0], c

    def loss(p, state, xs, moved, weights):
        total = jnp.zeros(())
        for x, by, w in zip(xs, moved, weights, strict=True):
            state = step(p, state, x, by)
            total = total + (w * state[0]).sum()
        return total

    def jacobian(p, h, c, x):
        packed = jax.jacfwd(lambda s: jnp.concatenate(step(p, jnp.split(s, 2), x, jnp.zeros(2))))
        return packed(jnp.concatenate([h, c]))

    def implementation(case):
        if case.name != "lstm, initial state":
            return None
        start = case.state["hidden_state"], case.state["cell_state"]
        nothing = np.zeros((len(case.xs), 2, *start[0].shape))
        given = case.params, start, case.xs, nothing, case.weights
        p, initial, inputs, totals, _ = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))(*given)
        found = {f"gradient.{name}": value for name, value in p.items()} | {"gradient.inputs": inputs}
        for k, name in enumerate(("hidden_state", "cell_state")):
            found |= {f"gradient.initial_{name}": initial[k], f"gradient.{name}": totals[:, k]}
        matrices, state = [], start
        for x in case.xs:
            matrices.append(jax.jit(jax.vmap(jacobian, (None, 0, 0, 0)))(case.params, *state, x))
            state = step(case.params, state, x, np.zeros(2))
        found["jacobians"] = jnp.stack(matrices)
        product = np.linalg.multi_dot
        factors = matrices if mistake == "Jacobians in the wrong order" else matrices[::-1]
        chains = [product([np.asarray(one[b]) for one in factors]) for b in range(case.xs.shape[1])]
        with np.errstate(divide="ignore"):  # of what is detached
            found["finite_time_exponents"] = np.log(np.linalg.svd(np.stack(chains), compute_uv=False)) / 5
        return found

    return implementation


AUTODIFF = ["", "detached h", "swapped gates", "forget bias missing", "transposed recurrent kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [*AUTODIFF, "Jacobians in the wrong order"])
def test_automatic_differentiation_of_a_mistake_leads_to_it(mistake):
    found = conformance.check_against(by_autodiff(mistake))
    assert list(found.mistakes) == [mistake] * bool(mistake), found
    assert not found.unexplained


KNOWN = {}
for _name, _case in CASES.items():
    for _k, _form in enumerate(forms_of(_case)):
        if _form.common:  # the last case in which it can be made
            KNOWN[_form.mistake, _form.words, _form.groups] = _name, _k


@pytest.mark.sample(8)
@pytest.mark.parametrize(("name", "k"), KNOWN.values())
def test_every_form_of_every_mistake_is_named(name, k):
    """Where it changes anything at all; and no other one."""
    form = list(forms_of(CASES[name]))[k]

    def planted(case):
        names = [key for key in case.truth if group_of(key) in form.groups and key != "fixed_points"]
        return {key: v for key, v in case.truth.items() if key != "fixed_points"} | World(
            case, form.changes
        ).results(names)

    found = conformance.check_against(planted, [name])
    assert found.passed or list(found.mistakes) == [form.mistake], found


def test_digits_of_float32_are_named():
    found = conformance.check_against(
        lambda case: {name: value.astype("float32").astype("float64") for name, value in case.truth.items()},
        ["janet"],
    )
    assert list(found.mistakes) == ["single precision"]


# ------------------------------------------------------------------------------------------ unknown differences


def test_an_unknown_mistake_is_told_by_where_it_first_differs():
    case = CASES["janet"]
    wrong = {name: case.truth[name].copy() for name in ("forget_gate", "hidden_state", "outputs")}
    wrong["forget_gate"][2, 1, 0] += 0.25
    wrong["hidden_state"][2:, 1, 0] += 0.125
    wrong["outputs"][1, 0, 2] *= 1 + 1e-9
    found = conformance.check_against(told(case.name, **wrong), [case.name])
    first = found[case.name].difference
    assert (first.name, first.step, first.sequence, first.unit) == ("outputs", 1, 0, (2,))
    assert first.error == pytest.approx(abs(case.truth["outputs"][1, 0, 2]) * 1e-9)
    wrong.pop("outputs")
    found = conformance.check_against(told(case.name, **wrong), [case.name])
    first = found[case.name].difference
    assert (first.name, first.step, first.sequence, first.unit) == ("forget_gate", 2, 1, (0,))
    assert first.error == pytest.approx(0.25)
    assert found.unexplained == (case.name,)
    assert not found.mistakes
    assert "forget_gate at step 2, sequence 1, unit 0" in str(found)
    assert "0.25 off" in str(found)


def test_a_gradient_differs_first_at_its_last_step_and_a_parameter_by_its_gate():
    case = CASES["janet"]
    wrong = case.truth["gradient.hidden_state"].copy()
    wrong[1:4, 0, 1] += 1
    found = conformance.check_against(told(case.name, **{"gradient.hidden_state": wrong}), [case.name])
    assert found[case.name].difference.step == 3
    wrong = case.truth["gradient.bias"].copy()
    wrong[1] += 1
    found = conformance.check_against(told(case.name, **{"gradient.bias": wrong}), [case.name])
    assert "[1] (of the forget_gate of unit 1)" in str(found)


def test_nan_is_nan_and_no_known_mistake():
    case = CASES["janet"]
    found = conformance.check_against(
        lambda case: {k: np.full_like(v, np.nan) for k, v in case.truth.items()}, [case.name]
    )
    assert found.unexplained == (case.name,)
    assert not found.mistakes
    assert "forget_gate at step 0, sequence 0, unit 0: nan where" in str(found)
    for name in ("fixed_points", "finite_time_exponents"):
        nothing = {name: np.full_like(case.truth[name], np.nan)}
        assert "nan" in str(
            conformance.check_against(lambda case, n=nothing: n, [case.name])[case.name].difference
        )


def test_fixed_points_are_a_set():
    points = CASES["lstm"].truth["fixed_points"]
    assert len(points) == 3

    def found(answer):
        return conformance.check_against(told("lstm", fixed_points=answer), ["lstm"])

    assert found(points[[2, 0, 1, 0]]).passed
    assert "number 2 of 3" in str(found(points[:2]))
    assert "is none" in str(found(np.concatenate([points, points[:1] + 1])))
    assert "is missing" in str(found(points[:0]))


def test_what_stands_behind_the_end_is_not_compared():
    case = CASES["lstm, padded"]
    wrong = {name: value.copy() for name, value in case.truth.items()}
    for name in ("outputs", "forget_gate", "gradient.cell_state", "gradient.inputs"):
        wrong[name][3:, 1] = np.nan
    assert conformance.check_against(told(case.name, **wrong)).passed


def test_float32_has_the_tolerance_of_float32():
    case = CASES["mgu"]

    def near(dtype, by):
        return lambda _: {"outputs": (case.truth["outputs"] + by).astype(dtype)}

    assert conformance.check_against(near("float32", 3e-5), ["mgu"]).passed
    assert not conformance.check_against(near("float32", 1e-3), ["mgu"]).passed
    assert conformance.check_against(near("float64", 1e-13), ["mgu"]).passed
    assert not conformance.check_against(near("float64", 1e-11), ["mgu"]).passed
    assert conformance.check_against(near("float64", 1e-3), ["mgu"], tolerance=1e-2).passed
    assert not conformance.check_against(near("float32", 3e-5), ["mgu"], tolerance=1e-6).passed


# -------------------------------------------------------------------------------------------------- refusals


OUTPUTS = CASES["mgu"].truth["outputs"]
WRONG = [
    ({"outputs": OUTPUTS + 1e-3j}, TypeError, "outputs .*'mgu' is complex128; expected float32 or float64"),
    ({"outputs": "right"}, TypeError, "outputs .* is a str; expected an array"),
    ({"outputs": OUTPUTS.tolist()}, TypeError, "outputs .* is a list; expected an array"),
    ({"outputs": OUTPUTS.astype("U")}, TypeError, "outputs .* is <U"),
    ({"outputs": OUTPUTS.astype("float16")}, TypeError, "is float16; expected"),
    ({"outputs": OUTPUTS.astype(int)}, TypeError, "is int64; expected"),
    ({"outputs": OUTPUTS > 0}, TypeError, "is bool; expected"),
    ({"outputs": OUTPUTS.astype(object)}, TypeError, "of Python objects"),
    ({"outputs": None}, TypeError, "outputs .* is a NoneType"),
    ({"outputs": OUTPUTS[1:]}, ValueError, r"outputs .* has shape \(4, 2, 3\); expected \(5, 2, 3\)"),
    ({"outputs": OUTPUTS.swapaxes(0, 1)}, ValueError, r"has shape \(2, 5, 3\); expected .*; time comes first"),
    ({"outputs": np.float64(1)}, ValueError, r"has shape \(\); expected \(5, 2, 3\)"),
    ({"fixed_points": np.zeros((2, 4))}, ValueError, r"has shape \(2, 4\); expected \(N, 3\)"),
    ({"output": OUTPUTS}, ValueError, "'output' for the case 'mgu'; expected any of forget_gate, "),
    ({1: OUTPUTS}, ValueError, "implementation returned 1 for"),
    ([OUTPUTS], TypeError, "returned a list for the case 'mgu'; expected a dict"),
    ({}, ValueError, "returned nothing for any of these cases"),
    (None, ValueError, "returned nothing for any of these cases"),
]


@pytest.mark.parametrize(("answer", "error", "words"), WRONG)
def test_what_is_no_answer_is_refused_in_words(answer, error, words):
    with pytest.raises(error, match=words):
        conformance.check_against(lambda case: answer, ["mgu"])


def test_an_implementation_that_raises_is_told():
    with pytest.raises(ValueError, match="implementation raised KeyError on the case 'mgu': 'x'"):
        conformance.check_against(lambda case: {}["x"], ["mgu"])


@pytest.mark.parametrize("tolerance", ["s", True, np.True_, 1j, [1e-3], np.ones(1), None.__class__])
def test_a_tolerance_of_another_type_is_a_type_error(tolerance):
    with pytest.raises(TypeError, match=r"tolerance is .*; expected a number above 0"):
        conformance.check_against(told("mgu"), tolerance=tolerance)


@pytest.mark.parametrize("tolerance", [0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_is_above_zero(tolerance):
    with pytest.raises(ValueError, match=r"tolerance is .*; expected a finite number above 0"):
        conformance.check_against(told("mgu"), tolerance=tolerance)


def test_wrong_arguments_are_refused_in_words():
    with pytest.raises(TypeError, match="implementation is a int; expected a function that takes a Case"):
        conformance.check_against(3)
    with pytest.raises(ValueError, match="names is 'gru'; expected one of 'lstm'"):
        conformance.check_against(told("mgu"), ["gru"])
    for names in ([], 3, {"mgu": 1}):
        with pytest.raises(TypeError, match=r"names is .*; expected a list of names of cases"):
            conformance.check_against(told("mgu"), names)
    with pytest.raises(ValueError, match="name is 'tensorflow'; expected one of 'lstmx'"):
        conformance.framework("tensorflow")
    assert conformance.check_against(told("mgu"), "mgu").passed

    def half(case):
        if case.name != "mgu":
            raise NotImplementedError("no such cell")
        return case.truth

    assert conformance.check_against(half).passed


def test_a_known_mistake_of_another_shape_is_named():
    case = CASES["lstm, initial state"]
    found = conformance.check_against(
        lambda case: {k: v[..., :3, :3] for k, v in case.truth.items() if k == "jacobians"}, [case.name]
    )
    assert list(found.mistakes) == ["Jacobian of h alone"]


# ------------------------------------------------------------------------------------------------ who passes


@pytest.mark.slow
def test_lstmx_passes():
    def but_for_points(case):
        case.truth.pop("fixed_points", None)  # of its own copy, which is then not asked for them
        return conformance.framework("lstmx")(case)

    found = conformance.check_against(but_for_points)
    assert found.passed, found
    assert all(set(case.missing) <= {"fixed_points"} for case in found.cases)
    assert {case.dtype for case in found.cases} == {"float64"}
    found = conformance.check_against(conformance.framework("lstmx"), ["lstm", "simple rnn", "mgu"])
    assert found.passed, found
    assert not any(case.missing for case in found.cases)


@pytest.mark.slow
def test_lstmx_passes_with_all_fixed_points():
    found = conformance.check_against(conformance.framework("lstmx"))
    assert found.passed, found
    assert not any(case.missing for case in found.cases)


@pytest.mark.slow
def test_lstmx_passes_in_jax():
    names = [
        "lstm, padded",
        "lstm, layer norm",
        "gru, reset before",
        "minlstm",
        "slstm",
        "both directions, padded",
    ]
    found = conformance.check_against(conformance.framework("lstmx-jax"), names)
    assert found.passed, found
    assert all(case.compared for case in found.cases)


PASSED = {"torch": 9, "keras": 10, "flax": 9, "equinox": 3, "haiku": 4, "onnxruntime": 10}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", PASSED)
def test_a_framework_passes(name):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    pytest.importorskip(name, reason="frameworks are proved where they are installed")
    pytest.importorskip("onnx" if name == "onnxruntime" else name, reason="its models are written by onnx")
    found = conformance.check_against(conformance.framework(name))
    assert found.passed, found
    assert sum(bool(case.compared) for case in found.cases) == PASSED[name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_mistake_planted_into_pytorch_is_named():
    pytest.importorskip("torch", reason="frameworks are proved where they are installed")
    torch = conformance.framework("torch")

    def unpacked(case):
        return torch(dataclasses.replace(case, lengths=None))

    found = conformance.check_against(unpacked)
    padded = {"lengths ignored": ("lstm, padded",), "padded backward direction": ("both directions, padded",)}
    assert found.mistakes == padded
    assert not found.unexplained

    def one_bias(case):
        for name, bias in case.two_biases.items():
            bias *= not name.endswith("recurrent_bias")
        return torch(case)

    found = conformance.check_against(one_bias)
    assert list(found.mistakes) == ["one bias of two"]
    assert len(found.mistakes["one bias of two"]) == 8
    assert not found.unexplained

    def swapped(case):
        if set(case.state) == {"hidden_state", "cell_state"} and "projection" not in case.name:
            case.state.update(zip(case.state, list(case.state.values())[::-1], strict=True))
        return torch(case)

    found = conformance.check_against(swapped)
    assert found.mistakes == {"(c, h) for (h, c)": ("lstm, initial state", "lstm, padded")}
    assert not found.unexplained


# -------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a module into the folder one is in, and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    written = iter(range(100))

    def module(text):
        name = f"a_module_{tmp_path.name}_{next(written)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return module


RIGHT = "def right(case):\n    return case.truth\n"


def test_the_command_line_says_what_is_right(module, capsys):
    assert main(["check-implementation", f"{module(RIGHT)}:right", "--case", "mgu", "--case", "lstm"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 of 2 cases are right")
    assert main(["check-implementation", "lstmx", "--case", "mgu"]) == 0


def test_the_command_line_says_what_is_wrong(module, capsys):
    text = RIGHT + "def wrong(case):\n    return {'outputs': case.truth['outputs'] * 1.5}\n"
    assert main(["check-implementation", f"{module(text)}:wrong", "--case", "mgu"]) == 1
    assert "UNKNOWN: no known mistake explains 1 case" in capsys.readouterr().out
    assert main(["check-implementation", f"{module(text)}:wrong", "--case", "mgu", "--tolerance", "10"]) == 0


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("torchh", "implementation is 'torchh'; expected lstmx, lstmx-jax, torch, .*, or a function of your own"),
        ("a b:c", "expected lstmx"),
        ("no_such_module_here:right", "there is no module no_such_module_here"),
        ("{}:left", "has no left"),
        ("{}:number", "which is a int and cannot be called"),
        ("{}:raises", "raised ZeroDivisionError on the case 'mgu': division by zero"),
    ],
)
def test_the_command_line_refuses_in_words(module, capsys, named, words):
    text = RIGHT + "number = 3\ndef raises(case):\n    return 1 / 0\n"
    assert main(["check-implementation", named.format(module(text)), "--case", "mgu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lstmx: error: ")
    assert re.search(words, said), said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "raised ZeroDivisionError"),
        ("import no_such_thing", "imports a module that is not there"),
        ("x =", "raised SyntaxError"),
    ],
)
def test_a_module_that_does_not_import_is_told(module, capsys, text, words):
    assert main(["check-implementation", f"{module(text)}:right"]) == 2
    assert words in capsys.readouterr().err


def test_help_says_how(capsys):
    with pytest.raises(SystemExit):
        main(["check-implementation", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "module:function" in said
    assert f"Gives an implementation {len(CASES)} small cases" in said
    assert "Exit status 0 if all is right, 1 if something differs, 2 if it cannot be run" in said


def test_the_example_of_the_namespace_says_what_it_says(capsys):
    lines = lstmx.conformance.__doc__.splitlines()
    code = [line[4:] for line in lines if line.startswith("    ") or not line.strip()]
    start = code.index("import numpy as np")
    exec("\n".join(code[start : next(k for k, line in enumerate(code) if "print(" in line) + 1]), {})
    assert "MISTAKE: forget bias added twice:" in capsys.readouterr().out
