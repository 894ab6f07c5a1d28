"""PyTorch's models and files as people have them: each converts and agrees with PyTorch, or is refused by name."""

import argparse
import importlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import lstmx
from lstmx.app.choices import Choices
from lstmx.app.cli import main
from lstmx.app.weights import read_weights
from lstmx.convert import from_torch

torch = pytest.importorskip("torch", reason="models are built, run and saved by PyTorch itself")
nn = torch.nn
parametrizations = torch.nn.utils.parametrizations
prune = importlib.import_module("torch.nn.utils.prune")
pack = torch.nn.utils.rnn.pack_padded_sequence

pytestmark = [
    pytest.mark.slow,  # a framework to import
    pytest.mark.filterwarnings(  # of PyTorch's own
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:LSTM with projections is not supported with oneDNN:UserWarning",
        "ignore:torch.quantize_per_tensor:UserWarning",
        "ignore::torch.jit.TracerWarning",
    ),
]
T, B, D, H = 6, 3, 3, 4


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# -------------------------------------------------------------------------------------------- models of the tests


class Loop(nn.Module):
    """A cell called step by step; `between` changes the state on the way."""

    def __init__(self, cell, between=lambda state: state):
        super().__init__()
        self.cell, self.between = cell, between

    def forward(self, xs, state=None):
        outputs = []
        for x in xs:
            state = self.cell(x, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
            state = self.between(state)
        return torch.stack(outputs), state


class Chunks(nn.Module):
    """A layer called on one piece of the sequence after another."""

    def __init__(self, rnn, keep=True):
        super().__init__()
        self.rnn, self.keep = rnn, keep

    def forward(self, xs, state=None):
        outputs = []
        for piece in xs.split(2):
            made, after = self.rnn(piece, state)
            outputs.append(made)
            state = after if self.keep else None
        return torch.cat(outputs), after


class Plain(nn.LSTM):
    """A subclass that computes what nn.LSTM does."""


class Alone(nn.GRU):
    """A subclass that returns its outputs without the states, as nn.Sequential needs it."""

    def forward(self, x):
        return super().forward(x)[0]


class Last(nn.GRU):
    """A subclass that returns the last output only."""

    def forward(self, x):
        return super().forward(x)[0][-1]


class Doubled(nn.LSTM):
    """A subclass with a forward of its own."""

    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


class Adapted(nn.LSTM):
    """Low-rank factors beside the weights."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.lora_a, self.lora_b = nn.Parameter(torch.ones(1, H)), nn.Parameter(torch.ones(4 * H, 1))

    def forward(self, x, hx=None):
        kept = self.weight_hh_l0.data.clone()
        self.weight_hh_l0.data += self.lora_b @ self.lora_a
        made = super().forward(x, hx)
        self.weight_hh_l0.data.copy_(kept)
        return made


class Buffered(nn.GRU):
    """A buffer that is in no state dict."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("scale", torch.ones(2), persistent=False)


class Namesake(nn.Module):
    """Another class named LSTM, with arrays of the same names."""

    def __init__(self):
        super().__init__()
        for name, parameter in nn.LSTM(D, H).named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x):
        return x @ self.weight_ih_l0.T, None


Namesake.__name__ = "LSTM"


class Dropped(nn.Module):
    """Weight dropping as AWD-LSTM's: the weights beside the module in which one draw of them stands."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        raw = self.module.weight_hh_l0
        del self.module._parameters["weight_hh_l0"]
        self.register_parameter("weight_hh_l0_raw", raw)
        self.draw()

    def draw(self):
        self.module.weight_hh_l0 = nn.functional.dropout(self.weight_hh_l0_raw, 0.5, self.training)

    def forward(self, *args):
        self.draw()
        return self.module.forward(*args)


# ------------------------------------------------------------------------------------------------------- corpus


def states(module, batch):
    """Initial states that are not zeros, as the module takes them."""
    lead = (module.num_layers * (1 + module.bidirectional),) if hasattr(module, "num_layers") else ()
    h = torch.randn(*lead, *batch, getattr(module, "proj_size", 0) or module.hidden_size)
    lstm = isinstance(module, (nn.LSTM, nn.LSTMCell))
    return (h, torch.randn(*lead, *batch, module.hidden_size)) if lstm else h


def layer(kind, given, **options):
    """A layer with initial states on one of the forms of its inputs."""

    def build():
        form = {"batch_first": True} if given == "batch first" else {}
        module = getattr(nn, kind)(D, H, **options, **form)
        xs = torch.randn(T, B, D)
        if given == "packed":
            xs = pack(xs, torch.tensor([6, 4, 1]))
        if given == "packed, unsorted":
            xs = pack(xs, torch.tensor([2, 6, 4]), enforce_sorted=False)
        if given == "batch first":
            xs = xs.transpose(0, 1)
        if given == "unbatched":
            xs = xs[:, 0]
        if given == "zeros":
            return module, (xs,)
        return module, (xs, states(module, () if given == "unbatched" else (B,)))

    return build


def on(make, model=lambda module: module, state=False):
    """What `make` returns, in a model around it, on a batch of sequences."""

    def build():
        module = make()
        given = (torch.randn(T, B, D),)
        return model(module), (*given, states(module, (B,))) if state else given

    return build


KINDS = [("LSTM", {}), ("LSTM", {"proj_size": 2}), ("GRU", {}), ("RNN", {}), ("RNN", {"nonlinearity": "relu"})]
FORMS = {"zeros": "zeros"} | {
    f"initial states, {form}": form
    for form in ("time first", "batch first", "unbatched", "packed", "packed, unsorted")
}


def words(option):
    """An option of a layer, as labels call it."""
    return {"num_layers": "{} layers", "bidirectional": "both directions", "proj_size": "projection to {}"}.get(
        option[0], "{}"
    ).format(option[1])


CORPUS = []
for (kind, options), deep in itertools.product(KINDS, ({}, {"num_layers": 2, "bidirectional": True})):
    label = ", ".join([kind, *filter(None, map(words, (options | deep).items()))])
    CORPUS += [(f"{label}, {form}", layer(kind, given, **options, **deep), True) for form, given in FORMS.items()]
for kind, more in itertools.product(("LSTM", "GRU", "RNN"), ({}, {"num_layers": 2}, {"bidirectional": True})):
    label = ", ".join([kind, "no bias", *map(words, more.items())])
    CORPUS += [(label, layer(kind, "time first", bias=False, **more), True)]
for kind, bias in itertools.product((nn.LSTMCell, nn.GRUCell, nn.RNNCell), (True, False)):
    made = lambda kind=kind, bias=bias: kind(D, H, bias=bias)  # noqa: E731
    label = f"{kind.__name__} in a loop{'' if bias else ', no bias'}, initial states"
    CORPUS += [(label, on(made, Loop, state=True), True)]
ON_ITS_OWN = "with states that are not its own"
WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_hh_l0")
CORPUS += [
    ("LSTM of 97, projection to 40", on(lambda: nn.LSTM(D, 97, proj_size=40)), True),
    ("RNNCell of relu", on(lambda: nn.RNNCell(D, H, nonlinearity="relu"), Loop), True),
    ("float64", lambda: (nn.LSTM(D, H).double(), (torch.randn(T, B, D).double(),)), True),
    ("layer called piece by piece", on(lambda: nn.LSTM(D, H, 2), Chunks, state=True), True),
    ("pieces from zeros", on(lambda: nn.GRU(D, H), lambda one: Chunks(one, keep=False)), ON_ITS_OWN),
    (
        "loop that scales the state",
        on(lambda: nn.GRUCell(D, H), lambda one: Loop(one, lambda h: h / 2)),
        ON_ITS_OWN,
    ),
    (
        "loop that scales in place",
        on(lambda: nn.GRUCell(D, H), lambda one: Loop(one, lambda h: h.mul_(2))),
        ON_ITS_OWN,
    ),
    ("two directions in pieces", on(lambda: nn.GRU(D, H, bidirectional=True), Chunks), "expected once"),
    ("subclass", on(lambda: Plain(D, H)), True),
    ("subclass with a forward", on(lambda: Doubled(D, H)), "a forward of its own"),
    ("low-rank factors", on(lambda: Adapted(D, H)), "a forward of its own"),
    ("a buffer beside", on(lambda: Buffered(D, H)), "holds scale beside the arrays of nn.GRU"),
    ("another class LSTM", on(Namesake), "expected an LSTM, GRU or RNN of PyTorch"),
    ("compiled", on(lambda: torch.compile(nn.LSTM(D, H), backend="eager")), True),
    ("in DataParallel", on(lambda: nn.GRU(D, H), nn.DataParallel), True),
    ("weight dropping", on(lambda: nn.LSTM(D, H), lambda one: Dropped(one)), "weight_hh_l0 is no parameter of"),
    ("float16", lambda: (nn.LSTM(D, H).half(), (torch.randn(T, B, D).half(),)), "is float16; expected float32"),
    ("bfloat16", lambda: (nn.GRU(D, H).bfloat16(), (torch.randn(T, B, D).bfloat16(),)), "is bfloat16; expected"),
    (
        "quantised",
        on(lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(D, H)), {nn.LSTM})[0]),
        "is a quantised LSTM",
    ),
]
for name in WEIGHTS:
    CORPUS += [
        (f"weight norm of {name}", on(lambda n=name: nn.utils.weight_norm(nn.LSTM(D, H), n)), True),
        (
            f"parametrised weight norm of {name}",
            on(lambda n=name: parametrizations.weight_norm(nn.GRU(D, H), n)),
            True,
        ),
        (f"pruned {name}", on(lambda n=name: prune.l1_unstructured(nn.RNN(D, H), n, 0.5)), True),
    ]
CORPUS += [
    ("weight norm as a whole", on(lambda: nn.utils.weight_norm(nn.LSTM(D, H), "weight_hh_l0", dim=None)), True),
    ("spectral norm", on(lambda: nn.utils.spectral_norm(nn.LSTM(D, H), "weight_hh_l0")), True),
    (
        "parametrised spectral norm",
        on(lambda: parametrizations.spectral_norm(nn.LSTM(D, H), "weight_hh_l0")),
        True,
    ),
    ("orthogonal", on(lambda: parametrizations.orthogonal(nn.RNN(D, H), "weight_hh_l0")), True),
    ("cell of weight norm", on(lambda: parametrizations.weight_norm(nn.GRUCell(D, H), "weight_hh"), Loop), True),
]


def inner(model):
    """The recurrent module of a model, as somebody would name it."""
    for name in ("cell", "rnn", "module"):
        model = getattr(model, name, model)
    return model


def of_state(final):
    """The fields of PyTorch's final states, each [layers · directions, B, H]."""
    return [one.detach().numpy() for one in (final if isinstance(final, tuple) else (final,))]


def flat_states(cell, state):
    """The same of ours."""
    if not hasattr(cell, "parts"):
        return [state]
    parts = zip(cell.parts.values(), state, strict=True)
    return [one for part, own in parts for one in flat_states(part, own)]


def refused(model, args):
    """Ask for both; the converter knows less than the recorder, which sees what comes out."""
    from_torch(inner(model))
    lstmx.record_torch(model, args)


@pytest.mark.parametrize(("build", "expected"), [one[1:] for one in CORPUS], ids=[one[0] for one in CORPUS])
def test_what_pytorch_can_build_agrees_or_is_refused(build, expected):
    model, args = build()
    model.eval()
    if expected is not True:
        with pytest.raises((ValueError, TypeError), match=re.escape(expected)):
            refused(model, args)
        return
    history = lstmx.record_torch(model, args, library="numpy")
    with torch.no_grad():
        outputs, final = model(*args)
    if isinstance(outputs, torch.nn.utils.rnn.PackedSequence):
        outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs)
    outputs = outputs.transpose(0, 1) if getattr(model, "batch_first", False) else outputs
    np.testing.assert_allclose(history.outputs, outputs.numpy(), atol=1e-6)
    ended = flat_states(history.cell, history.final)
    lead = hasattr(inner(model), "num_layers") or hasattr(model, "_orig_mod")
    for k, theirs in enumerate(of_state(final)):
        ours = np.stack([one[k] for one in ended])
        np.testing.assert_allclose(ours if lead else ours[0], theirs, atol=1e-6)
    cell, params = from_torch(inner(model))
    assert cell == history.cell
    for ours, theirs in zip(lstmx.arrays.leaves(params), lstmx.arrays.leaves(history.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ modules


@pytest.mark.parametrize("training", [False, True])
def test_spectral_norm_is_read_without_a_step_of_it(training):
    for norm in (nn.utils.spectral_norm, parametrizations.spectral_norm):
        module = norm(nn.LSTM(D, H), "weight_hh_l0").train(training)
        module.eval()(torch.ones(T, B, D))
        module.train(training)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        _, params = from_torch(module)
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        np.testing.assert_allclose(params.recurrent_kernel.T, module.eval().weight_hh_l0.detach(), atol=1e-6)


def test_weight_norm_is_that_of_loaded_weights_and_not_of_the_last_pass():
    source, module = (nn.utils.weight_norm(nn.LSTM(D, H), "weight_hh_l0") for _ in range(2))
    module.load_state_dict(source.state_dict())
    np.testing.assert_allclose(from_torch(module)[1].recurrent_kernel.T, source.weight_hh_l0.detach(), atol=1e-6)


def test_scripted_modules_are_read_and_their_models_said():
    module = nn.RNN(D, H, 2, nonlinearity="relu", bidirectional=True)
    cell, params = from_torch(torch.jit.script(module))
    assert cell == from_torch(module)[0]
    xs = torch.randn(T, B, D)
    np.testing.assert_allclose(lstmx.run(cell, params, xs.numpy())[0], module(xs)[0].detach(), atol=1e-6)
    with pytest.raises(TypeError, match=r"source is a scripted .*Linear; expected an LSTM"):
        from_torch(torch.jit.script(nn.Linear(D, H)))
    with pytest.raises(TypeError, match="a traced RNN, which does not say its nonlinearity"):
        from_torch(torch.jit.trace(nn.RNN(D, H), xs))
    with pytest.raises(TypeError, match="module is scripted, and runs where its layers cannot be listened to"):
        lstmx.record_torch(torch.jit.script(nn.Sequential(nn.LSTM(D, H))), xs)
    model = nn.Sequential(torch.jit.script(nn.Linear(D, D)), nn.LSTM(D, H))
    np.testing.assert_allclose(lstmx.record_torch(model, xs).outputs, model(xs)[0].detach(), atol=1e-6)


def test_names_that_wrappers_add_may_be_left_out():
    model = nn.DataParallel(nn.ModuleDict({"a": nn.GRU(D, H), "b": nn.GRU(D, H)}))
    model.module["b"] = torch.compile(model.module["b"], backend="eager")
    model.forward = lambda x: (model.module["a"](x), model.module["b"](x))
    xs = torch.randn(T, B, D)
    for name in ("a", "b", "module.b", "module.b._orig_mod"):
        expected = model.module[name.removeprefix("module.")[0]](xs)[0]
        np.testing.assert_allclose(lstmx.record_torch(model, xs, name).outputs, expected.detach(), atol=1e-6)
        cell, params = from_torch(model.state_dict(), f"{name}.")
        np.testing.assert_allclose(lstmx.run(cell, params, xs.numpy())[0], expected.detach(), atol=1e-6)
    compiled = torch.compile(nn.GRU(D, H), backend="eager")
    assert from_torch(compiled.state_dict())[0] == lstmx.GRU(D, H)


def test_quantised_layers_in_a_model_are_said():
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(D, H)), {nn.LSTM})
    with pytest.raises(TypeError, match="0 is quantised: record the model before it was quantised"):
        lstmx.record_torch(model, torch.randn(T, B, D))
    with pytest.raises(TypeError, match=r"is of a quantised module \(_all_weight_values.0.param\)"):
        from_torch(model.state_dict(), "0.")


def test_models_that_compute_other_than_their_weights_are_refused_when_recorded():
    xs = torch.randn(T, B, D)
    with pytest.raises(
        ValueError,
        match=r"the layer is a Doubled whose outputs or states differ by up to .* those of nn.LSTM on the same",
    ):
        lstmx.record_torch(Doubled(D, H), xs)
    with pytest.raises(
        ValueError, match=r"0 is a Adapted whose outputs or .* beside which it holds lora_a, lora_b: it has a"
    ):
        lstmx.record_torch(nn.Sequential(Adapted(D, H)), xs)
    with pytest.raises(ValueError, match="has no recurrent layer that lstmx knows"):
        lstmx.record_torch(Namesake(), xs)
    module = nn.LSTM(D, H)
    module.forward = lambda x: nn.LSTM.forward(module, x + 1)
    with pytest.raises(TypeError, match="source is a LSTM with a forward of its own"):
        from_torch(module)
    with pytest.raises(ValueError, match="whose outputs or states differ"):
        lstmx.record_torch(module, xs)
    assert vars(module)["forward"].__name__ == "<lambda>"
    del module.forward
    alone = nn.Sequential(Alone(D, H), nn.Tanh())
    np.testing.assert_allclose(lstmx.record_torch(alone, xs).outputs, alone[0](xs).detach(), atol=1e-6)
    with pytest.raises(ValueError, match=r"a Last whose outputs are of another shape"):
        lstmx.record_torch(Last(D, H), xs)
    untouched = Adapted(D, H)
    untouched.lora_b.data.zero_()  # as before any training
    np.testing.assert_allclose(lstmx.record_torch(untouched, xs).outputs, untouched(xs)[0].detach(), atol=1e-6)


class Chunked(nn.LSTM):
    """Forgets its state every four steps."""

    def forward(self, x, hx=None):
        pieces = [super(Chunked, self).forward(piece) for piece in x.split(4)]
        return torch.cat([outputs for outputs, _ in pieces]), pieces[-1][1]


class Rectified(nn.LSTM):
    def forward(self, x, hx=None):
        outputs, state = super().forward(x, hx)
        return torch.relu(outputs), state


class Clipped(nn.LSTMCell):
    """Clips its cell state, which its outputs do not show at first."""

    def forward(self, x, state=None):
        h, c = super().forward(x, state)
        return h, c.clamp(-0.3, 0.3)


@pytest.mark.parametrize("size", [1.0, 0.01])
@pytest.mark.parametrize("kind", [Chunked, Rectified, Clipped])
def test_forwards_that_differ_late_or_little_are_refused(kind, size):
    module = kind(D, 32, bias=False) if kind is Rectified else kind(D, 32)
    for parameter in module.parameters():
        parameter.data *= size if kind is not Clipped else 4
    model = Loop(module) if kind is Clipped else nn.Sequential(module)
    xs = torch.randn(40, B, D) * (size if kind is not Clipped else 1)
    with pytest.raises(ValueError, match=f"is a {kind.__name__} whose outputs or states differ by up to"):
        lstmx.record_torch(model, xs)


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_another_precision_is_refused_however_small_the_outputs(scale):
    """Of a GRU: PyTorch's LSTM in bfloat16 needs a processor with instructions for it."""
    module = nn.GRU(D, 16)
    for parameter in module.parameters():
        parameter.data *= scale
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="or runs in another precision"):
        lstmx.record_torch(module, torch.randn(T, B, D))


def test_what_no_module_takes_is_said():
    with pytest.raises(
        TypeError, match=r"x is a ndarray; expected what the model takes, tensors: torch.as_tensor"
    ):
        lstmx.record_torch(nn.LSTM(D, H), np.zeros((T, B, D), "float32"))
    module = nn.LSTM(D, H)
    module.register_forward_pre_hook(lambda module, given: module.weight_hh_l0.data.zero_())
    with pytest.raises(ValueError, match=r"a hook before its forward, .*lambda.*, which may change weights"):
        from_torch(module)
    for source, words in (
        ({1: torch.ones(2)}, "source has the name 1; expected arrays under PyTorch's names"),
        ({"epoch": 3, "state_dict": {}}, r"source is a dict of dicts.*: source\['state_dict'\]"),
        (nn.LSTM(D, H, device="meta"), r"weight_ih_l0 holds no numbers \(device meta\)"),
        ({"weight_ih_l0": torch.eye(4).to_sparse(), "weight_hh_l0": torch.eye(4)}, "weight_ih_l0 is sparse"),
    ):
        with pytest.raises(TypeError, match=words):
            from_torch(source)


def test_an_rnn_in_a_dict_is_said_to_be_taken_with_tanh():
    arrays = nn.RNN(D, H).state_dict()
    with pytest.warns(UserWarning, match="the RNN is taken to have tanh, which a dict does not say"):
        from_torch(arrays)
    assert from_torch(arrays, nonlinearity="relu")[0].activation == "relu"
    with pytest.raises(ValueError, match="nonlinearity is 'relu'; the state dict holds a LSTM"):
        from_torch(nn.LSTM(D, H).state_dict(), nonlinearity="relu")
    with pytest.raises(ValueError, match="nonlinearity is 'tanh'; a module says its own"):
        from_torch(nn.RNN(D, H), nonlinearity="tanh")


def test_spectral_norm_in_training_is_no_forward_of_its_own():
    for norm in (nn.utils.spectral_norm, parametrizations.spectral_norm):
        module = norm(nn.LSTM(D, H, bidirectional=True), "weight_hh_l0").train()
        xs = torch.randn(T, B, D)
        history = lstmx.record_torch(module, xs)
        module.eval()
        np.testing.assert_allclose(history.outputs, module(xs)[0].detach(), atol=1e-6)


def test_outputs_that_differ_later_only_are_refused():
    class Later(nn.LSTM):
        def forward(self, x, hx=None):
            made, state = super().forward(x, hx)
            return torch.where(torch.arange(len(x))[:, None, None] < 20, made, 1.0), state

    with pytest.raises(ValueError, match="Later whose outputs or states differ by up to"):
        lstmx.record_torch(Later(D, H), torch.randn(30, B, D))


def test_chaotic_networks_are_recorded_with_a_warning_that_they_drift():
    for bidirectional in (False, True):
        module = nn.RNN(D, 200, bidirectional=bidirectional)
        for name, parameter in module.named_parameters():
            if name.startswith("weight_hh"):
                parameter.data.normal_(0, 5 / 200**0.5)
        with pytest.warns(UserWarning, match="rounding grows in it from step to step, as in a chaotic network"):
            history = lstmx.record_torch(module, torch.randn(300, B, D), library="numpy")
        assert len(history) == 300


def test_a_layer_that_is_not_called_is_said_and_forward_restored():
    model = nn.ModuleDict({"rnn": nn.LSTM(D, H)})
    model.forward = lambda x: x
    with pytest.raises(ValueError, match="rnn was not called by the model"):
        lstmx.record_torch(model, torch.randn(T, B, D))
    assert "forward" not in vars(model["rnn"])


# -------------------------------------------------------------------------------------------------- state dicts


def own_weights(module, prefix="net.", **extra):
    arrays = {f"{prefix}{name}": value.detach() for name, value in module.state_dict().items()}
    return arrays | {f"{prefix}{name}": value for name, value in extra.items()}


def without(arrays, *names):
    return {name: value for name, value in arrays.items() if not name.endswith(names)}


REFUSED = {
    "one bias of another name": (
        lambda: own_weights(nn.LSTMCell(D, H, bias=False), bias=torch.ones(4 * H)),
        "the state dict under 'net.' has surplus bias, which no LSTM",
    ),
    "one of two biases": (
        lambda: without(own_weights(nn.LSTMCell(D, H)), "bias_hh"),
        "lacks bias_hh; it has weight_ih",
    ),
    "biases of one of two layers": (
        lambda: without(own_weights(nn.GRU(D, H, 2)), "bias_ih_l1", "bias_hh_l1"),
        "lacks bias_ih_l1",
    ),
    "layer norm inside": (
        lambda: own_weights(nn.LSTMCell(D, H), **{"norm.weight": torch.ones(H), "norm.bias": torch.ones(H)}),
        "has surplus norm.bias, norm.weight",
    ),
    "peepholes": (lambda: own_weights(nn.LSTMCell(D, H), weight_ci=torch.ones(H)), "has surplus weight_ci"),
    "low-rank factors": (lambda: own_weights(nn.LSTMCell(D, H), lora_a=torch.ones(1, H)), "has surplus lora_a"),
    "a layer that is left out": (lambda: without(own_weights(nn.GRU(D, H, 3)), "_l1"), "has surplus .*_l2"),
    "spectral norm": (
        lambda: own_weights(nn.utils.spectral_norm(nn.LSTM(D, H), "weight_hh_l0")),
        "weight_hh_l0 is made of weight_hh_l0_orig, weight_hh_l0_u, weight_hh_l0_v by a rule",
    ),
    "parametrised spectral norm": (
        lambda: own_weights(parametrizations.spectral_norm(nn.LSTM(D, H), "weight_hh_l0")),
        "weight_hh_l0 is made of parametrizations.weight_hh_l0.original, .* by a rule",
    ),
    "weight norm over columns": (
        lambda: own_weights(nn.utils.weight_norm(nn.LSTM(D, H), "weight_hh_l0", dim=1)),
        r"under weight norm with magnitudes of shape \(1, 4\); expected \(16, 1\)",
    ),
    "half precision": (
        lambda: own_weights(nn.LSTM(D, H).half()),
        r"is float16; .*with dtype=.*--dtype float32",
    ),
    "integers": (
        lambda: {name: x.to(torch.int64) for name, x in own_weights(nn.LSTMCell(D, H)).items()},
        r"is int64, as quantisation stores weights",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_state_dicts_of_other_cells_are_refused_by_name_in_python_and_in_files(case, tmp_path):
    build, words = REFUSED[case]
    arrays = build()
    with pytest.raises((ValueError, TypeError), match=words):
        from_torch(arrays, "net.")
    torch.save({"model": arrays}, tmp_path / "model.pt")
    with pytest.raises((ValueError, TypeError), match=words.replace("'net.'", "'model.net.'")):
        read_weights(tmp_path / "model.pt")


MADE = {
    "weight norm": lambda: nn.utils.weight_norm(nn.LSTM(D, H), "weight_hh_l0"),
    "weight norm of a bias": lambda: nn.utils.weight_norm(nn.LSTM(D, H), "bias_hh_l0"),
    "parametrised": lambda: parametrizations.weight_norm(nn.LSTM(D, H, 2), "weight_ih_l1"),
    "pruned bias": lambda: prune.l1_unstructured(nn.LSTM(D, H), "bias_hh_l0", 0.5),
    "pruned above": lambda: prune.l1_unstructured(nn.LSTM(D, H, 2), "weight_ih_l1", 0.5),
    "all": lambda: prune.random_unstructured(
        nn.utils.weight_norm(nn.LSTM(D, H, bidirectional=True), "weight_hh_l0"), "weight_ih_l0_reverse", 0.5
    ),
}


@pytest.mark.parametrize("case", MADE)
@pytest.mark.parametrize("wrapper", ["", "_orig_mod.", "module."])
def test_norms_and_pruning_in_files_are_applied(case, wrapper, tmp_path):
    module = MADE[case]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    xs = torch.randn(T, B, D)
    expected = module(xs)[0].detach().numpy()
    told = []
    torch.save(own_weights(module, f"{wrapper}net."), tmp_path / "model.pth.tar")
    cell, params, name, _ = read_weights(tmp_path / "model.pth.tar", "net", Choices(tell=told.append))
    assert name == f"{wrapper}net"
    np.testing.assert_allclose(lstmx.run(cell, params, xs.numpy())[0], expected, atol=1e-6)
    assert any("weight norm" in words or "is pruned" in words for words in told)


def test_weight_dropping_is_read_before_the_draw(tmp_path):
    model = nn.ModuleDict({"rnns": nn.ModuleList([Dropped(nn.LSTM(D, H))])})
    raw = model["rnns"][0].weight_hh_l0_raw.detach().clone()
    one = own_weights(model, "")
    drawn = one | {"rnns.0.module.weight_hh_l0": torch.zeros(4 * H, H)}  # as later versions of PyTorch save it
    same_module = {name.replace("module.", ""): x for name, x in drawn.items()}
    for arrays, prefixes in ((one, 2), (drawn, 2), (same_module, 1)):
        for prefix in ("rnns.0.", "rnns.0.module.")[:prefixes]:
            np.testing.assert_array_equal(from_torch(arrays, prefix)[1].recurrent_kernel.T, raw)
        torch.save(arrays, tmp_path / "awd.bin")
        told = []
        _, params, name, _ = read_weights(tmp_path / "awd.bin", choices=Choices(tell=told.append))
        assert name == "rnns.0"
        np.testing.assert_array_equal(params.recurrent_kernel.T, raw)
        assert any("the weights before dropping" in words for words in told)
    model["rnns"][0].eval()
    xs = torch.randn(T, B, D)
    recorded = lstmx.record_torch(model["rnns"][0], xs)
    np.testing.assert_allclose(recorded.outputs, model["rnns"][0](xs)[0].detach(), atol=1e-6)
    np.testing.assert_array_equal(recorded.params.recurrent_kernel.T, raw)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_casts_when_it_is_asked_for(kind, tmp_path):
    arrays = {name: (8 * x).to(kind) for name, x in own_weights(nn.GRU(D, H)).items()}
    _, params = from_torch(arrays, "net.", dtype="float32")
    np.testing.assert_array_equal(params.recurrent_kernel.T, arrays["net.weight_hh_l0"].float())
    torch.save(arrays, tmp_path / "model.ckpt")
    read = read_weights(tmp_path / "model.ckpt", choices=Choices(dtype="float32"))[1]
    assert read.recurrent_kernel.dtype == "float32"
    np.testing.assert_array_equal(read.bias, params.bias)
    with pytest.raises(ValueError, match="dtype is 'half'; expected one of 'float32', 'float64'"):
        from_torch(arrays, "net.", dtype="half")
    with pytest.raises(TypeError, match="is int8, as quantisation stores weights"):
        from_torch({name: x.to(torch.int8) for name, x in arrays.items()}, "net.", dtype="float32")
    with pytest.raises(TypeError, match="is complex64; expected float32 or float64"):
        from_torch({name: x.to(torch.complex64) for name, x in arrays.items()}, "net.", dtype="float32")


def test_a_prefix_needs_no_dot():
    assert from_torch(own_weights(nn.GRU(D, H), "encoder.rnn."), "encoder.rnn")[0] == lstmx.GRU(D, H)


def test_the_prefix_of_a_module_inside_is_said():
    arrays = own_weights(nn.GRU(D, H), "encoder.rnn.") | {"head.weight": torch.ones(2)}
    with pytest.raises(ValueError, match=r"those of modules inside are under prefix='encoder.rnn.'"):
        from_torch(arrays)


# --------------------------------------------------------------------------------------------------- checkpoints

XS = np.random.default_rng(0).normal(size=(40, D)).astype("float32")


def analyze(tmp_path, weights, *options, inputs=XS):
    np.save(tmp_path / "xs.npy", inputs)
    given = ["--weights", str(weights), "--inputs", str(tmp_path / "xs.npy"), "--output", str(tmp_path / "out")]
    return main(["analyze", *given, *options])


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar", ".ckpt", ".bin", ".PT"])
def test_checkpoints_of_every_suffix_and_nesting(suffix, tmp_path):
    arrays = own_weights(nn.LSTM(D, H), "model.rnn.")
    nested = {
        "epoch": 3,
        "state_dict": arrays,
        "hyper_parameters": {"hidden": H, "lr": 0.1},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(1)}}}],
    }
    for held, name in ((arrays, "model.rnn"), (nested, "state_dict.model.rnn"), ([arrays], "0.model.rnn")):
        torch.save(held, tmp_path / f"model{suffix}")
        cell, params, found, _ = read_weights(tmp_path / f"model{suffix}")
        assert (cell, found) == (lstmx.LSTM(D, H), name)
        np.testing.assert_array_equal(params.input_kernel.T, arrays["model.rnn.weight_ih_l0"])


def test_classes_in_a_checkpoint_are_named_and_nothing_says_to_run_their_code(tmp_path):
    arrays = own_weights(nn.LSTM(D, H), "model.rnn.")
    path = tmp_path / "model.ckpt"
    told = "whose code is not run here: where it was made, save its weights alone, by torch.save"

    def refused(words):
        with pytest.raises(ValueError, match=words) as raised:
            read_weights(path)
        for word in ("\x1b", "\n", "weights_only", "jit.load"):
            assert word not in str(raised.value)

    torch.save({"state_dict": arrays, "hyper_parameters": argparse.Namespace(hidden=H)}, path)
    refused(f"holds objects of argparse.Namespace, {told}")
    torch.save(nn.Sequential(nn.LSTM(D, H)), path)
    refused(f"torch.nn.modules.rnn.LSTM.*{told}")
    torch.jit.save(torch.jit.script(nn.LSTM(D, H)), path)
    refused(f"holds a scripted model, {told}")
    path.write_bytes(b"")
    refused("model.ckpt is empty$")
    around = {}
    around["again"] = around
    torch.save(around, path)
    refused("holds dicts or lists in one another without end")
    torch.save({"weight_hh_l0": torch.zeros(1).expand(10**5, 10**6)}, path)
    refused(r"weight_hh_l0 is \(100000, 1000000\) of torch.float32, more than the [\d,]+ bytes of the file")
    torch.save({"weight_hh_l0": torch.empty(10**5, 10**6, device="meta")}, path)
    refused(r"weight_hh_l0 is \(100000, 1000000\)|holds no numbers")
    torch.save({"state_dict": arrays, "best": np.float64(0.3)}, path)
    with pytest.raises(ValueError, match=r"objects of .*numpy.*scalar"):
        read_weights(path)
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(D, H)), {nn.LSTM})
    torch.save(quantised.state_dict(), path)
    with pytest.raises(ValueError, match="holds a quantised model, whose weights are integers"):
        read_weights(path)


def test_bfloat16_without_jax_is_said(tmp_path):
    torch_files = pytest.importorskip("safetensors.torch", reason="NumPy has no bfloat16 to write")
    torch_files.save_file({"weight_hh_l0": torch.ones(4, 4).bfloat16()}, tmp_path / "b.safetensors")
    code = (
        "import sys; sys.modules['jax'] = sys.modules['ml_dtypes'] = None\n"
        "from lstmx.app.weights import read_weights\n"
        f"read_weights({str(tmp_path / 'b.safetensors')!r})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert "b.safetensors holds numbers that NumPy lacks" in ended.stderr


# ----------------------------------------------------------------------------------------------- command line


def test_the_command_line_says_what_it_assumes_and_takes_relu(tmp_path):
    module = nn.RNN(D, H, nonlinearity="relu")
    for parameter in module.parameters():
        parameter.data.abs_().mul_(0.5)  # no unit is 0 for good
    torch.save(module.state_dict(), tmp_path / "relu.pt")
    assert analyze(tmp_path, tmp_path / "relu.pt") == 0
    said = (tmp_path / "out" / "summary.txt").read_text()
    assert "Assumed: the RNN's nonlinearity is tanh, which the file does not say (--nonlinearity relu)." in said
    assert analyze(tmp_path, tmp_path / "relu.pt", "--nonlinearity", "relu") == 0
    assert "activation='relu'" in (tmp_path / "out" / "summary.txt").read_text()
    with np.load(tmp_path / "out" / "history.npz") as saved:
        expected = module(torch.tensor(XS))[0].detach()
        np.testing.assert_allclose(saved["hidden_state"], expected, atol=1e-6)


def test_the_command_line_casts_weights_and_inputs(tmp_path, capsys):
    module = nn.GRU(D, H).half()
    arrays = {name: x.detach().numpy() for name, x in module.state_dict().items()}
    save_file(arrays, tmp_path / "half.safetensors")
    assert analyze(tmp_path, tmp_path / "half.safetensors") == 2
    assert "is float16; expected float32 or float64" in capsys.readouterr().err
    assert analyze(tmp_path, tmp_path / "half.safetensors", "--dtype", "float32", inputs=XS.astype("float64")) == 0
    with np.load(tmp_path / "out" / "history.npz") as saved:
        expected = module.float()(torch.tensor(XS))[0].detach()
        np.testing.assert_allclose(saved["hidden_state"], expected, atol=1e-6)


def test_bfloat16_in_safetensors_is_said_or_cast(tmp_path):
    torch_files = pytest.importorskip("safetensors.torch", reason="NumPy has no bfloat16 to write")
    arrays = {name: x.detach() for name, x in nn.GRU(D, H).bfloat16().state_dict().items()}
    torch_files.save_file(arrays, tmp_path / "b.safetensors")
    with pytest.raises(TypeError, match="is bfloat16; expected float32 or float64"):
        read_weights(tmp_path / "b.safetensors")
    read = read_weights(tmp_path / "b.safetensors", choices=Choices(dtype="float32"))[1]
    np.testing.assert_array_equal(read.recurrent_kernel.T, arrays["weight_hh_l0"].float())


def test_dozens_of_layers_are_listed_one_a_line(tmp_path, capsys):
    model = nn.ModuleList([nn.GRU(D, H) for _ in range(24)])
    torch.save(model.state_dict(), tmp_path / "many.pt")
    assert analyze(tmp_path, tmp_path / "many.pt") == 2
    said = capsys.readouterr().err
    assert "choose one with --layer NAME, or --layer all; those are: \n  '0'\n  '1'\n" in said
    assert len(said.splitlines()) == 25


@pytest.mark.slow  # four reports
def test_all_layers_that_the_inputs_fit_are_reported_on(tmp_path, capsys):
    model = nn.ModuleDict(
        {
            "encoder": nn.GRU(D, H, 2),
            "other": nn.LSTM(D, H),
            "decoder": nn.LSTM(D + 5, H),
            "pruned": nn.utils.spectral_norm(nn.LSTM(D, H), "weight_hh_l0"),
        }
    )
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert analyze(tmp_path, tmp_path / "model.pt", "--layer", "all") == 0
    said = (tmp_path / "out" / "summary.txt").read_text()
    assert f"encoder: layer 1: in {tmp_path / 'out' / 'encoder-layer-1'}/" in said
    assert (
        f"Left out: decoder: {tmp_path / 'xs.npy'} has 3 columns; the layer reads 8 features. Inputs are" in said
    )
    assert "Left out: pruned: the state dict under 'pruned.': weight_hh_l0 is made of" in said
    made = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert made == {"encoder-layer-0", "encoder-layer-1", "other"}
    xs = torch.tensor(XS)
    for folder, expected in (("other", model["other"](xs)[0]), ("encoder-layer-1", model["encoder"](xs)[0])):
        with np.load(tmp_path / "out" / folder / "history.npz") as saved:
            np.testing.assert_allclose(saved["hidden_state"], expected.detach(), atol=1e-6)
    capsys.readouterr()
    assert analyze(tmp_path, tmp_path / "model.pt", "--layer", "all", inputs=np.zeros((9, 7), "float32")) == 2
    error = capsys.readouterr().err
    assert "has no recurrent layer that reads these inputs" in error
    assert f"Left out: other: {tmp_path / 'xs.npy'} has 7 columns; the layer reads 3 features. Inputs are" in error
