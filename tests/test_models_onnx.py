"""Models of ONNX as others write them: converted or recorded as onnxruntime computes them, or refused by name."""

import itertools

import numpy as np
import pytest

import lstmx
from lstmx import convert

onnx = pytest.importorskip("onnx", reason="it reads models of ONNX")
runtime = pytest.importorskip("onnxruntime", reason="models of ONNX are proved against the runtime")
helper, tensor = onnx.helper, onnx.numpy_helper.from_array

pytestmark = pytest.mark.slow  # a framework to import
D, H, B, T = 3, 4, 2, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"LSTM": ("h", "c"), "GRU": ("h",), "RNN": ("h",)}
DRAWS = np.random.default_rng(0)
XS = DRAWS.normal(size=(T, B, D)).astype("float32")
CONSTANT = "a cell and its parameters hold no such thing: record_onnx"


def drawn(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(0, 0.4, shape).astype("float32")


def weights(kind, directions=1, d=D, h=H):
    gates = GATES[kind]
    return {
        "W": drawn(directions, gates * h, d),
        "R": drawn(directions, gates * h, h),
        "B": drawn(directions, 2 * gates * h),
    }


def model_of(nodes, constants=(), inputs=None, outputs=("Y",), opset=14, **options):
    """A ModelProto of nodes, with arrays as initializers and (name, array like it) as inputs."""
    inputs = {"X": XS} if inputs is None else inputs
    element = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, element(x.dtype), [f"{name}{k}" for k in range(x.ndim)])
            for name, x in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [tensor(value, name) for name, value in dict(constants).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **options)


def operator(kind, lengths="", states=(), peepholes="", hidden_size=H, bias="B", name="rnn", x="X", **attributes):
    """The node of one operator, with the inputs that are named."""
    read = [x, "W", "R", bias, lengths, *states, *[""] * (2 - len(states)), peepholes]
    read = read if kind == "LSTM" else read[:6]
    if hidden_size:
        attributes["hidden_size"] = hidden_size
    return helper.make_node(kind, read, ["Y"], name=name, **attributes)


def runtimes_output(model, given, output="Y"):
    """What onnxruntime makes of a model, [T, B, directions H] from [T, directions, B, H]."""
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run([output], given)
    return np.concatenate(np.moveaxis(y, 1, 0), axis=-1)


def agrees(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def one(kind, directions=1, bias=True, state=None, lengths=None, peepholes=False, opset=14, **attributes):
    """A model of one operator, and what it is called with."""
    if directions == 2:
        attributes["direction"] = "bidirectional"
    constants, inputs = weights(kind, directions), {"X": XS}
    if not bias:
        del constants["B"]
    if peepholes:
        constants["P"] = drawn(directions, 3 * H)
    states = {} if state is None else {name: drawn(directions, B, H, seed=ord(name)) for name in STATES[kind]}
    states = {name: 0 * value for name, value in states.items()} if state == "zeros" else states
    (inputs if state == "given" else constants).update(states)
    if lengths is not None:
        (inputs if lengths == "given" else constants)["n"] = np.array([T, 2], "int32")
    node = operator(
        kind,
        "" if lengths is None else "n",
        tuple(states),
        "P" if peepholes else "",
        bias="B" if bias else "",
        **attributes,
    )
    return model_of([node], constants, inputs, opset=opset), inputs


CORPUS = [
    (
        f"{kind}{', after the product' if after else ''}, {'both directions' if n == 2 else 'one direction'}, "
        f"{'a bias' if bias else 'no bias'}{(state and f', initial states {state}') or ''}"
        f"{(lengths and f', lengths {lengths}') or ''}",
        lambda kind=kind, n=n, bias=bias, state=state, lengths=lengths, after=after: one(
            kind, n, bias, state, lengths, **({"linear_before_reset": 1} if after else {})
        ),
        CONSTANT if "constant" in (state, lengths) else True,
    )
    for (kind, after), n, bias, (state, lengths) in itertools.product(
        (("LSTM", False), ("GRU", False), ("GRU", True), ("RNN", False)),
        (1, 2),
        (True, False),
        ((None, None), ("zeros", None), ("given", "given"), ("constant", None), (None, "constant")),
    )
]
CORPUS += [
    ("RNN of ReLU", lambda: one("RNN", activations=["Relu"]), True),
    ("RNN of ReLU, both directions", lambda: one("RNN", 2, activations=["Relu"] * 2), True),
    ("RNN of ReLU and tanh", lambda: one("RNN", 2, activations=["Relu", "Tanh"]), "has activations"),
    (
        "RNN of sigmoids",
        lambda: one("RNN", activations=["Sigmoid"]),
        r"has activations .* \(sigmoid\); lstmx has Sigmoid and HardSigmoid of alpha",
    ),
    ("LSTM, activations in small letters", lambda: one("LSTM", activations=["sigmoid", "tanh", "tanh"]), True),
    ("LSTM of hard sigmoids", lambda: one("LSTM", activations=["HardSigmoid", "Tanh", "Tanh"]), True),
    (
        "GRU of hard sigmoids of Keras 3, both directions",
        lambda: one("GRU", 2, activations=["HardSigmoid", "Tanh"] * 2, activation_alpha=[1 / 6] * 2),
        True,
    ),
    (
        "LSTM of steep hard sigmoids",
        lambda: one("LSTM", activations=["HardSigmoid", "Tanh", "Tanh"], activation_alpha=[0.3]),
        r"HardSigmoid with alpha and beta \(0.3",
    ),
    ("LSTM of ReLU", lambda: one("LSTM", activations=["Sigmoid", "Relu", "Relu"]), True),
    ("LSTM of ReLU inside alone", lambda: one("LSTM", 2, activations=["Sigmoid", "Relu", "Tanh"] * 2), True),
    ("LSTM of Elu", lambda: one("LSTM", activations=["Sigmoid", "Elu", "Elu"]), r"has activations .* \(elu\)"),
    ("GRU of ReLU", lambda: one("GRU", activations=["Sigmoid", "Relu"]), True),
    ("LSTM, peepholes", lambda: one("LSTM", peepholes=True), True),
    (
        "LSTM, peepholes, both directions, initial states, lengths",
        lambda: one("LSTM", 2, True, "given", "given", True),
        True,
    ),
    ("backwards alone", lambda: one("GRU", direction="reverse"), "reads backwards alone"),
    ("clip", lambda: one("LSTM", clip=3.0), "has clip, which lstmx has no equal of"),
    ("input_forget", lambda: one("LSTM", input_forget=1), "has input_forget=1"),
    ("activation_alpha", lambda: one("RNN", activation_alpha=[0.3]), "has activation_alpha"),
    ("activation_beta", lambda: one("RNN", activation_beta=[0.3]), "has activation_beta"),
    ("opset 7", lambda: one("GRU", opset=7), True),
]
"""Label, a function that builds a model with its inputs, and True where it converts or words of the refusal."""


@pytest.mark.parametrize(("label", "build", "expected"), CORPUS, ids=[label for label, *_ in CORPUS])
def test_corpus(label, build, expected):
    model, given = build()
    if expected is not True:
        with pytest.raises(ValueError, match=expected):
            convert.from_onnx(model)
    if expected in (True, CONSTANT):
        made = runtimes_output(model, given)
        history = lstmx.record_onnx(model, given)
        agrees(history.outputs, made)
    if expected is True and len(given) == 1:
        agrees(lstmx.run(*convert.from_onnx(model), XS)[0], made)


def test_the_state_of_a_model_is_not_lost():
    constants = {"W": np.full((1, 12, 4), 0.1), "R": np.full((1, 12, 3), 0.1), "B": np.zeros((1, 24))}
    constants |= {"h": np.zeros((1, 2, 3)), "c": np.full((1, 2, 3), 0.1)}
    constants = {name: value.astype("float32") for name, value in constants.items()}
    xs = np.arange(1, 9, dtype="float32").reshape(1, 2, 4)
    model = model_of([operator("LSTM", "", ("h", "c"), hidden_size=3)], constants)
    history = lstmx.record_onnx(model, xs, library="numpy")
    agrees(history.outputs[0], np.repeat([[0.4079063], [0.7142519]], 3, axis=1))
    agrees(history.outputs, runtimes_output(model, {"X": xs}))
    with pytest.raises(
        ValueError, match=r"LSTM 'rnn': initial_c is 'c', which is the model's own and not seen to"
    ):
        convert.from_onnx(model)
    without = model_of([operator("LSTM", hidden_size=3)], {name: constants[name] for name in "WRB"})
    agrees(
        lstmx.run(*convert.from_onnx(without), xs)[0][0],
        np.repeat([[0.3696064], [0.6759951]], 3, axis=1),
    )


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=tensor(np.asarray(value), name))


def broadcast(state):
    """Nodes that spread a state [1, 1, H] over the batch of X, as exporters do."""
    return [
        constant("one", [1]),
        constant("where", [1]),
        constant("size", [H]),
        helper.make_node("Shape", ["X"], ["shape"]),
        helper.make_node("Gather", ["shape", "where"], ["batch"]),
        helper.make_node("Concat", ["one", "batch", "size"], ["sizes"], axis=0),
        constant("small", state),
        helper.make_node("Expand", ["small", "sizes"], ["h"]),
    ]


def test_states_of_the_shape_of_a_batch():
    learned = drawn(1, 1, H)
    for state in (learned, 0 * learned):
        model = model_of([*broadcast(state), operator("GRU", "", ("h",))], weights("GRU"))
        agrees(lstmx.record_onnx(model, XS).outputs, runtimes_output(model, {"X": XS}))
        if state.any():
            with pytest.raises(
                ValueError, match="initial_h is 'h', which is the model's own and not seen to be ze"
            ):
                convert.from_onnx(model)
        else:
            agrees(lstmx.run(*convert.from_onnx(model), XS)[0], runtimes_output(model, {"X": XS}))


def test_zeros_of_the_shape_of_a_batch():
    nodes = broadcast(drawn(1, 1, H))[:-2]
    model = model_of(
        [*nodes, helper.make_node("ConstantOfShape", ["sizes"], ["h"]), operator("GRU", "", ("h",))],
        weights("GRU"),
    )
    agrees(lstmx.run(*convert.from_onnx(model), XS)[0], runtimes_output(model, {"X": XS}))
    seven = helper.make_node("ConstantOfShape", ["sizes"], ["h"], value=tensor(np.array([7], "float32")))
    model = model_of([*nodes, seven, operator("GRU", "", ("h",))], weights("GRU"))
    with pytest.raises(ValueError, match="not seen to be zero"):
        convert.from_onnx(model)


def test_lengths_of_the_shape_of_the_inputs_are_said_to_be_all_steps():
    nodes = [
        constant("first", [0]),
        constant("second", [1]),
        helper.make_node("Shape", ["X"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["steps"]),
        helper.make_node("Gather", ["shape", "second"], ["batch"]),
        helper.make_node("Expand", ["steps", "batch"], ["long"]),
        helper.make_node("Cast", ["long"], ["n"], to=onnx.TensorProto.INT32),
        operator("LSTM", "n"),
    ]
    model = model_of(nodes, weights("LSTM"))
    with pytest.warns(UserWarning, match="sequence_lens is computed from the shapes of the inputs and is taken"):
        cell, params = convert.from_onnx(model)
    agrees(lstmx.run(cell, params, XS)[0], runtimes_output(model, {"X": XS}))
    assert lstmx.record_onnx(model, XS).counts is None


def test_operators_of_one_name_are_asked_for_by_their_outputs():
    nodes = [operator("LSTM", name=name) for name in ("rnn", "rnn", "", "last")]
    for k, node in enumerate(nodes):
        node.output[0] = f"Y{k}"
    nodes[2].output[0] = ""
    nodes[2].output.append("Y2_h")
    model = model_of(nodes, weights("LSTM"), outputs=("Y0",))
    names = "'rnn -> Y0', 'rnn -> Y1', 'Y2_h', 'last'"
    for asked in (None, "rnn"):
        with pytest.raises(ValueError, match=names):
            convert.from_onnx(model, asked)
    for name in ("rnn -> Y1", "Y2_h", "last"):
        assert convert.from_onnx(model, name)[0] == lstmx.LSTM(D, H)
    unnamed = [operator("GRU", name="") for _ in range(2)]
    for k, node in enumerate(unnamed):
        node.output[0], _ = "", node.output.append(f"h{k}")
    with pytest.raises(ValueError, match="'h0', 'h1'"):
        convert.from_onnx(model_of(unnamed, weights("GRU"), outputs=("h0",)))


@pytest.mark.filterwarnings("error")
def test_a_gru_that_pytorch_wrote_with_the_reset_before():
    model, _ = one("GRU", linear_before_reset=0)
    convert.from_onnx(model)
    model.producer_name, model.producer_version = "pytorch", "2.10.0"
    with pytest.warns(UserWarning, match=r"written by PyTorch 2\.10\.0 with linear_before_reset=0.*reset='after'"):
        cell, params = convert.from_onnx(model)
    assert cell.reset == "before"
    agrees(lstmx.run(cell, params, XS)[0], runtimes_output(model, {"X": XS}))
    right, _ = one("GRU", linear_before_reset=1)
    right.producer_name = "pytorch"
    assert convert.from_onnx(right)[0].reset == "after"
    agrees(lstmx.record_onnx(model, XS, reset="after").outputs, runtimes_output(right, {"X": XS}))
    agrees(lstmx.run(*convert.from_onnx(model, reset="after"), XS)[0], runtimes_output(right, {"X": XS}))
    assert convert.from_onnx(model, reset="before")[0].reset == "before"
    with pytest.raises(ValueError, match="reset is 'between'; expected one of 'before', 'after'"):
        convert.from_onnx(model, reset="between")
    with pytest.raises(ValueError, match="reset is 'after'; LSTM 'rnn' has no reset gate: expected None"):
        convert.from_onnx(one("LSTM")[0], reset="after")


def sliced(letter, array, count):
    """Nodes that put `array` [1, count h, d] together from a transposed, cut and joined one, as exporters do."""
    h = array.shape[1] // count
    nodes = [
        constant(f"{letter}_t", array[0].T),
        helper.make_node("Transpose", [f"{letter}_t"], [f"{letter}_2"], perm=[1, 0]),
        constant(f"{letter}_axis", [0]),
    ]
    for k in range(count):
        nodes += [constant(f"{letter}_start{k}", [k * h]), constant(f"{letter}_stop{k}", [(k + 1) * h])]
        given = [f"{letter}_2", f"{letter}_start{k}", f"{letter}_stop{k}", f"{letter}_axis"]
        nodes.append(helper.make_node("Slice", given, [f"{letter}_part{k}"]))
    joined = [f"{letter}_part{k}" for k in range(count)]
    return [
        *nodes,
        helper.make_node("Concat", joined, [f"{letter}_joined"], axis=0),
        helper.make_node("Unsqueeze", [f"{letter}_joined", f"{letter}_axis"], [f"{letter}_whole"]),
        helper.make_node("Identity", [f"{letter}_whole"], [letter]),
    ]


def behind_nodes(kind, d, h, x="X", end="", **attributes):
    """Nodes of an operator whose weights are computed from constants, and constants."""
    arrays = {name: array / np.sqrt(h).astype("float32") for name, array in weights(kind, 1, d, h).items()}
    nodes = sliced(f"W{end}", arrays["W"], GATES[kind]) + sliced(f"R{end}", arrays["R"], GATES[kind])
    read = [x, f"W{end}", f"R{end}", f"B{end}"]
    last = helper.make_node(kind, read, [f"Y{end}"], name=f"layer{end}", hidden_size=h, **attributes)
    return [*nodes, last], {f"B{end}": arrays["B"]}


@pytest.mark.parametrize("apart", [False, True])
def test_weights_behind_nodes_and_in_other_files(apart, tmp_path):
    nodes, constants = behind_nodes("LSTM", 3, 64)
    model = model_of(nodes, constants)
    path = tmp_path / "model.onnx"
    options = {"save_as_external_data": True, "location": "model.data", "size_threshold": 0} if apart else {}
    onnx.save(model, str(path), convert_attribute=apart, **options)
    made = runtimes_output(model_of(*behind_nodes("LSTM", 3, 64)), {"X": XS})
    agrees(lstmx.run(*convert.from_onnx(path), XS)[0], made)
    agrees(lstmx.record_onnx(path, XS).outputs, made)
    if apart:
        (tmp_path / "model.data").write_bytes((tmp_path / "model.data").read_bytes()[:100])
        with pytest.raises(ValueError, match=r"one cannot be read|is cut short"):
            convert.from_onnx(path)
        (tmp_path / "model.data").unlink()
        with pytest.raises(
            ValueError, match="keeps tensors in other files beside it, of which one cannot be read"
        ):
            convert.from_onnx(path)
        with pytest.raises(
            ValueError, match=r"W_t is in the file model\.data, which this ModelProto was loaded with"
        ):
            convert.from_onnx(onnx.load(str(path), load_external_data=False))


def test_two_layers_of_64_units():
    first, constants = behind_nodes("GRU", 64, 64, linear_before_reset=1)
    second, more = behind_nodes("GRU", 64, 64, "between", "1", linear_before_reset=1)
    between = [constant("axis", [1]), helper.make_node("Squeeze", ["Y", "axis"], ["between"])]
    model = model_of([*first, *between, *second], constants | more, {"X": drawn(T, B, 64)}, ("Y", "Y1"))
    xs = drawn(T, B, 64)
    layers = [convert.from_onnx(model, name) for name in ("layer", "layer1")]
    stack = lstmx.Stack([cell for cell, _ in layers])
    made = runtimes_output(model, {"X": xs}, "Y1")
    agrees(lstmx.run(stack, tuple(params for _, params in layers), xs)[0], made)
    agrees(lstmx.record_onnx(model, xs, "layer1").outputs, made)


def test_a_model_around_the_operator():
    """Batch first, scaled, with a state and lengths that are computed from the inputs."""
    nodes = [
        helper.make_node("Mul", ["batch first", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["X"], perm=[1, 0, 2]),
        helper.make_node("Tanh", ["context"], ["h"]),
        operator("GRU", "n", ("h",)),
        helper.make_node("NoSuchOperator", ["Y"], ["out"]),
    ]
    given = {
        "batch first": np.swapaxes(XS, 0, 1),
        "context": drawn(1, B, H, seed=5),
        "n": np.array([3, T], "int32"),
        "unread": drawn(2),
    }
    model = model_of(nodes, weights("GRU") | {"scale": np.array(0.5, "float32")}, given, ("out",))
    whole = model_of(nodes[:-1], weights("GRU") | {"scale": np.array(0.5, "float32")}, given)
    made = runtimes_output(whole, given)
    history = lstmx.record_onnx(model, tuple(given.values()))
    agrees(history.outputs, made)
    assert history.lengths.tolist() == [3, T]
    unread = given.pop("unread")
    agrees(lstmx.record_onnx(model, given).outputs, made)
    assert convert.from_onnx(model)[0] == lstmx.GRU(D, H, reset="before")
    with pytest.raises(
        ValueError, match="x lacks context, n; expected arrays for batch first, context, n, unread"
    ):
        lstmx.record_onnx(model, given["batch first"])
    with pytest.raises(ValueError, match="x has 'X'; the model takes batch first"):
        lstmx.record_onnx(model, {"X": XS})
    with pytest.raises(ValueError, match="x holds 5 arrays; the model takes batch first, context, n, unread"):
        lstmx.record_onnx(model, (unread,) * 5)
    with pytest.raises(TypeError, match="x: context is float64; the model takes float32"):
        lstmx.record_onnx(model, given | {"context": given["context"].astype("float64")})


def test_an_operator_that_is_batch_first():
    model = model_of([operator("LSTM", "", ("h", "c"), layout=1)], weights("LSTM"), {"X": XS})
    states = {name: drawn(B, 1, H, seed=ord(name)) for name in "hc"}
    for name, value in states.items():
        model.graph.initializer.append(tensor(value, name))
    batch_first = np.ascontiguousarray(np.swapaxes(XS, 0, 1))
    history = lstmx.record_onnx(model, batch_first)
    timed = model_of([operator("LSTM", "", ("h", "c"))], weights("LSTM"), {"X": XS})
    for name, value in states.items():
        timed.graph.initializer.append(tensor(np.ascontiguousarray(np.swapaxes(value, 0, 1)), name))
    agrees(history.outputs, runtimes_output(timed, {"X": XS}))  # the runtime has no layout=1
    (y,) = onnx.reference.ReferenceEvaluator(model).run(["Y"], {"X": batch_first})
    agrees(history.outputs, np.moveaxis(y[..., 0, :], 0, 1))


def test_operators_inside_bodies_and_of_others_are_named_as_such():
    inner = operator("LSTM", name="inner")
    info = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)
    body = helper.make_graph([inner], "body", [], [info])
    other = helper.make_graph([helper.make_node("Identity", ["X"], ["Z"])], "other", [], [info])
    other.output[0].name = "Z"
    choice = helper.make_node("If", ["ask"], ["out"], name="choice", then_branch=body, else_branch=other)
    given = {"X": XS, "ask": np.array(True)}
    model = model_of([choice], weights("LSTM"), given, ("out",))
    with pytest.raises(ValueError, match="stands in the then_branch of If 'choice'; lstmx reads operators of the"):
        convert.from_onnx(model)
    both = model_of([choice, operator("GRU")], weights("GRU"), given, ("out",))
    with pytest.raises(
        ValueError, match=r"choose one with node=; .*inner in the then_branch of If .*'choice.*'rnn'"
    ):
        convert.from_onnx(both)
    assert convert.from_onnx(both, "rnn")[0] == lstmx.GRU(D, H, reset="before")
    quantised = model_of([operator("LSTM")], weights("LSTM"))
    quantised.graph.node[0].op_type, quantised.graph.node[0].domain = "DynamicQuantizeLSTM", "com.microsoft"
    with pytest.raises(ValueError, match=r"DynamicQuantizeLSTM 'rnn' is of com\.microsoft; lstmx reads LSTM, GRU"):
        convert.from_onnx(quantised)
    function = helper.make_function(
        "own", "MyLSTM", ["X", "W", "R"], ["Y"], [inner], [helper.make_opsetid("", 14)]
    )
    called = helper.make_node("MyLSTM", ["X", "W", "R"], ["Y"], domain="own")
    model = model_of([called], weights("LSTM"), functions=[function])
    with pytest.raises(ValueError, match=r"LSTM .*inner in the function .* stands in the function 'MyLSTM'"):
        convert.from_onnx(model)


def test_weights_that_are_no_constants_of_float32():
    half = {name: value.astype("float16") for name, value in weights("LSTM").items()}
    with pytest.raises(TypeError, match="LSTM 'rnn': W is float16; expected float32 or float64"):
        convert.from_onnx(model_of([operator("LSTM")], half))
    up = [helper.make_node("Cast", [f"{n}16"], [n], to=onnx.TensorProto.FLOAT) for n in half]
    model = model_of([*up, operator("LSTM")], {f"{name}16": value for name, value in half.items()})
    agrees(lstmx.run(*convert.from_onnx(model), XS)[0], runtimes_output(model, {"X": XS}))
    arrays = weights("LSTM")
    given = {"X": XS, "W": arrays.pop("W")}
    with pytest.raises(ValueError, match="LSTM 'rnn': W is 'W', which the model computes; expected a constant"):
        convert.from_onnx(model_of([operator("LSTM")], arrays, given))
    random = helper.make_node("RandomNormal", [], ["W"], shape=[1, 4 * H, D])
    with pytest.raises(ValueError, match="W is 'W', which the model computes"):
        convert.from_onnx(model_of([random, operator("LSTM")], arrays))
    with pytest.raises(ValueError, match=r"W has shape \(1, 16, 3\); expected \(1, 20, any\)"):
        convert.from_onnx(one("LSTM", hidden_size=5)[0])


@pytest.mark.parametrize(("kind", "directions"), [("LSTM", 1), ("GRU", 2), ("RNN", 1)])
def test_without_the_number_of_units(kind, directions):
    model, _ = one(kind, directions, hidden_size=0)  # which the runtime insists on
    agrees(lstmx.run(*convert.from_onnx(model), XS)[0], runtimes_output(one(kind, directions)[0], {"X": XS}))


def test_first_operators_said_which_outputs_are_asked_for():
    model, _ = one("LSTM", output_sequence=1)
    agrees(lstmx.run(*convert.from_onnx(model), XS)[0], runtimes_output(one("LSTM")[0], {"X": XS}))


def test_peepholes_of_one_direction_alone():
    model, given = one("LSTM", 2, peepholes=True)
    place = next(k for k, array in enumerate(model.graph.initializer) if array.name == "P")
    peephole = drawn(2, 3 * H)
    peephole[0] = 0
    model.graph.initializer[place].CopyFrom(tensor(peephole, "P"))
    agrees(lstmx.run(*convert.from_onnx(model), XS)[0], runtimes_output(model, given))


def test_what_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError):
        convert.from_onnx(tmp_path / "absent.onnx")
    (tmp_path / "short.onnx").write_bytes(one("LSTM")[0].SerializeToString()[:100])
    with pytest.raises(ValueError, match=r"short\.onnx is no readable model of ONNX"):
        convert.from_onnx(tmp_path / "short.onnx")
    with pytest.raises(TypeError, match="source is a int; expected a ModelProto or the path"):
        convert.from_onnx(3)
    for wrong in (None, 3, lstmx.LSTM(2, 2)):
        with pytest.raises(TypeError, match=r"model is a .*; expected a ModelProto or the path"):
            lstmx.record_onnx(wrong, XS)
        with pytest.raises(TypeError, match=r"x: X is .*; the model takes float32"):
            lstmx.record_onnx(one("LSTM")[0], wrong)
