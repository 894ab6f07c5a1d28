"""PyTorch: `nn.LSTM`, `nn.GRU`, `nn.RNN`, and the cells of these, from modules and from state dicts."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, namespace, require, to_numpy
from lstmx.cells import GRU, LSTM, Cell, LSTMVariantParams, SimpleRNN
from lstmx.checks import one_of
from lstmx.convert.named import (
    Layer,
    Named,
    as_floats,
    assembled,
    checked,
    chosen,
    gru_of_two_biases,
    lstm,
    plain,
    recorded,
    second_bias,
    simple,
    taken_apart,
)
from lstmx.history import History
from lstmx.layers import Layers, Stack
from lstmx.passes.run import run

_CELL_ARRAYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_BLOCKS = {"LSTM": 4, "GRU": 3, "RNN": 1}
_OWN = r"(?:weight|bias)_(?:ih|hh|hr)(?:_l\d+(?:_reverse)?)?"
_MADE = re.compile(
    rf"(?P<own>{_OWN})(?P<end>|_raw|_g|_v|_u|_orig|_mask)|parametrizations\.(?P<inner>{_OWN})\.(?P<part>.+)"
)
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module)\.")  # of torch.compile, and of DataParallel
_PROBE = 4  # steps on which outputs are compared with the module's; over many, rounding grows in chaotic networks


def from_torch(
    source: Any, prefix: str = "", nonlinearity: str | None = None, dtype: str | None = None
) -> tuple[Any, Any]:
    """An LSTM, GRU or simple RNN of PyTorch: all of its layers, directions and projections.

    Args:
        source: an `nn.LSTM`, `nn.GRU`, `nn.RNN`, `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`, compiled or scripted
            too; or a state dict (or any dict of arrays) with the names of one: weight_ih_l0 [4H, D], weight_hh_l0
            [4H, H], bias_ih_l0, bias_hh_l0 [4H], weight_hr_l0 [P, H]. Which of them it is shows in the shapes.
            Weight norm, pruning and spectral norm of a module are applied, as in eval mode. Of those of a dict,
            weight norm over rows (`…_g`, `…_v`), pruning (`…_orig`, `…_mask`) and weight dropping (`…_raw`, the
            weights of which one draw stands beside) are, and others refused.
        prefix: what the names of this module begin with in the dict of a larger one, such as "encoder.rnn."; other
            names are left out then. The "_orig_mod." of `torch.compile` and the "module." of `DataParallel` may
            be left out of it.
        nonlinearity: of an RNN in a dict, which does not say it: "tanh", which is taken where None is given, or
            "relu". A module says its own.
        dtype: "float32" or "float64", to cast every array to; None to take them as they are.

    Returns:
        The cell, or a `Stack` or `Bidirectional`, and its parameters as NumPy arrays. The two biases of PyTorch
        are added up, but for those of a GRU's candidate. Dropout between layers becomes the stack's.

    Raises:
        TypeError: an array of another dtype than float32 or float64, and no `dtype` to cast it to; or this is no
            module of these kinds, is quantised, or has a forward of its own.
        ValueError: an array is missing, surplus or of another shape; one is made of others by a rule that is not
            known; `nonlinearity` of what has none or says its own; or another word.

    Warns:
        UserWarning: an RNN in a dict is taken to have tanh, since `nonlinearity` is None.
    """
    if nonlinearity is not None:
        one_of("nonlinearity", nonlinearity, ("tanh", "relu"))
    if dtype is not None:
        one_of("dtype", dtype, ("float32", "float64"))
    if hasattr(source, "state_dict"):
        if nonlinearity is not None:
            raise ValueError(f"nonlinearity is {nonlinearity!r}; a module says its own: expected None")
        what, arrays, nonlinearity, dropout = _of_module(source)
        arrays = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
        return _converted(what, arrays, nonlinearity, dtype, dropout)
    if not isinstance(source, Mapping):
        raise TypeError(f"source is a {type(source).__name__}; expected an LSTM, GRU or RNN of PyTorch, or a dict")
    for name, value in source.items():
        if not isinstance(name, str):
            raise TypeError(f"source has the name {name!r}; expected arrays under PyTorch's names")
        if isinstance(value, Mapping):
            inside = "state_dict" if "state_dict" in source else name
            raise TypeError(
                f"source is a dict of dicts, as a checkpoint is; expected the arrays by name: source[{inside!r}]"
            )
    cell, params = read_state_dict(source, prefix, nonlinearity, dtype, lambda words: None)
    if nonlinearity is None and "SimpleRNN" in repr(cell):
        warnings.warn("the RNN is taken to have tanh, which a dict does not say: pass nonlinearity=", stacklevel=2)
    return cell, params


def read_state_dict(
    source: Mapping[str, Any],
    prefix: str,
    nonlinearity: str | None,
    dtype: str | None,
    tell: Callable[[str], Any],
) -> tuple[Any, Any]:
    """As `from_torch` of a dict; `tell` is called with each thing that is assumed, in words."""
    arrays, prefix = _under(source, prefix)
    what = f"the state dict under {prefix!r}" if prefix else "the state dict"
    made = _made(what, arrays, dtype, tell)
    cell, params = _converted(what, made, nonlinearity or "tanh", dtype)
    kind = next(one for one in ("LSTM", "GRU", "RNN") if one in repr(cell))
    tell(f"it is PyTorch's own {kind}, as names and shapes say")
    if not any(name.startswith("bias") for name in made):
        tell("the layer has no biases, as the file has none")
    if nonlinearity is not None and kind != "RNN":
        raise ValueError(f"nonlinearity is {nonlinearity!r}; {what} holds a {kind}, which has none to choose")
    if nonlinearity is None and kind == "RNN":
        tell("the RNN's nonlinearity is tanh, which the file does not say (--nonlinearity relu)")
    return cell, params


def _converted(
    what: str, arrays: dict[str, Any], nonlinearity: str, dtype: str | None, dropout: float = 0.0
) -> tuple[Any, Any]:
    """The cell or layers of arrays under PyTorch's own names."""
    named = Named(what, arrays, dtype)
    suffix = "" if "weight_ih" in named else "_l0"
    layers = [_layer(named, suffix, nonlinearity)]
    while suffix and f"weight_ih_l{len(layers)}" in named:
        layers.append(_layer(named, f"_l{len(layers)}", nonlinearity))
    named.nothing_left()
    return assembled(layers, dropout)


# --------------------------------------------------------------------------------------------- modules


def _of_module(source: Any) -> tuple[str, dict[str, Any], str, float]:
    """The name of a module's class, the weights that it computes with, its nonlinearity and its dropout.

    Raises:
        TypeError: this is no recurrent module of PyTorch, or it has a forward of its own.
        ValueError: it holds arrays beside those of its class, or computes one in a way that is not known.
    """
    torch = require("torch", "from_torch")
    source = getattr(source, "_orig_mod", source)  # what torch.compile wraps
    kinds = tuple(_classes(torch).values())
    kind, dropout = type(source).__name__, float(getattr(source, "dropout", None) or 0.0)
    dropout = dropout if getattr(source, "num_layers", 1) > 1 else 0.0
    if isinstance(source, torch.jit.ScriptModule):
        kind = re.sub(r"___torch_mangle_\d+\.", "", source._c._type().qualified_name())
        kind = kind.removeprefix("__torch__.torch.nn.modules.rnn.")
        if kind not in _classes(torch):
            raise TypeError(f"source is a scripted {kind}; expected an LSTM, GRU or RNN of PyTorch, or a dict")
        if kind.startswith("RNN") and getattr(source, "nonlinearity", None) is None:
            raise TypeError(
                "source is a traced RNN, which does not say its nonlinearity: give its state_dict(), and "
                "nonlinearity="
            )
        return f"the {kind}", dict(source.state_dict()), getattr(source, "nonlinearity", "tanh"), dropout
    if not isinstance(source, kinds):
        quantised = "quantiz" in type(source).__module__
        raise TypeError(
            f"source is a {'quantised ' if quantised else ''}{kind}; expected an LSTM, GRU or RNN of PyTorch, or "
            f"a dict{': convert the model before it was quantised' if quantised else ''}"
        )
    known = next(one for one in type(source).__mro__ if one in kinds)
    if _forward_of_its_own(source, known):
        raise TypeError(
            f"source is a {kind} with a forward of its own: what it computes is not known from its weights. "
            "Record it by record_torch, which compares the outputs; or give source.state_dict() if it computes "
            f"what nn.{known.__name__} does"
        )
    known_hooks = ("torch.nn.utils.prune", "torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")
    hooks = [one for one in source._forward_pre_hooks.values() if type(one).__module__ not in known_hooks]
    if hooks:
        named = getattr(hooks[0], "__qualname__", type(hooks[0]).__name__)
        raise ValueError(
            f"source is a {kind} with a hook before its forward, {named}, which may change weights: record it by "
            "record_torch, which sees them as they are then, or remove the hook"
        )
    weights, read = _live_weights(source)
    leaves = [name for name, _ in (*source.named_parameters(), *source.named_buffers())]
    surplus = sorted(set(leaves) - read)
    if surplus:
        raise ValueError(
            f"source is a {kind} that holds {', '.join(surplus)} beside the arrays of nn.{known.__name__}: what "
            "it does with these is not known"
        )
    return f"the {kind}", weights, getattr(source, "nonlinearity", "tanh"), dropout


def _classes(torch: Any) -> dict[str, Any]:
    """The recurrent modules of PyTorch by name."""
    names = [name + end for name in _BLOCKS for end in ("", "Cell")]
    return {name: getattr(torch.nn, name) for name in names}


def _forward_of_its_own(module: Any, known: type) -> bool:
    methods = ("forward", "__call__", "permute_hidden")
    found: list[Any] = [(getattr(type(module), name, None), getattr(known, name, None)) for name in methods]
    return "forward" in vars(module) or any(mine is not theirs for mine, theirs in found)


def _live_weights(module: Any) -> tuple[dict[str, Any], set[str]]:
    """The weights that a module computes with in eval mode, and the names of the arrays that they are made of.

    Raises:
        ValueError: one is computed in a way that is not known.
    """
    prune, weight_norm, spectral_norm = (
        require(f"torch.nn.utils.{name}", "from_torch") for name in ("prune", "weight_norm", "spectral_norm")
    )
    names: list[str] = getattr(module, "_flat_weights_names", None) or list(_CELL_ARRAYS)
    hooks = list(module._forward_pre_hooks.values())
    weights, read = {}, set()
    for name in names:
        made = getattr(module, "parametrizations", {})
        mine = [
            hook for hook in hooks if name in (getattr(hook, "name", None), getattr(hook, "_tensor_name", None))
        ]
        if name in module._parameters:
            weights[name] = module._parameters[name]
            read.add(name)
        elif name in made:
            weights[name] = _attribute(module, name)
            read |= {f"parametrizations.{name}.{leaf}" for leaf, _ in made[name].named_parameters()}
            read |= {f"parametrizations.{name}.{leaf}" for leaf, _ in made[name].named_buffers()}
        elif len(mine) == 1 and isinstance(mine[0], prune.BasePruningMethod):
            weights[name] = mine[0].apply_mask(module)
            read |= {f"{name}_orig", f"{name}_mask"}
        elif len(mine) == 1 and isinstance(mine[0], weight_norm.WeightNorm):
            weights[name] = mine[0].compute_weight(module)
            read |= {f"{name}_g", f"{name}_v"}
        elif len(mine) == 1 and isinstance(mine[0], spectral_norm.SpectralNorm):
            weights[name] = mine[0].compute_weight(module, do_power_iteration=False)
            read |= {f"{name}_orig", f"{name}_u", f"{name}_v"}
        else:
            raise ValueError(
                f"{type(module).__name__}.{name} is no parameter of the module but computed by other code, as "
                "weight dropping does: give the state dict of the model around it, and prefix="
            )
    return {name: weight for name, weight in weights.items() if weight is not None}, read


def _attribute(module: Any, name: str) -> Any:
    """A weight of a module, of a parametrization as in eval mode: in training mode each reading changes some."""
    made = getattr(module, "parametrizations", {})
    if name not in made:
        return getattr(module, name)
    training = made[name].training
    made[name].eval()
    try:
        return getattr(module, name)
    finally:
        made[name].train(training)


# --------------------------------------------------------------------------------------------- state dicts


def unwrapped(found: Mapping[str, Any], name: str | None) -> str | None:
    """The only name of `found` that is this one but for the names that wrappers add; else the name itself."""
    if name is None or name in found:
        return name
    same = [one for one in found if _WRAPPER.sub("", f"{one}.") == _WRAPPER.sub("", f"{name}.")]
    return same[0] if len(same) == 1 else name


def _under(source: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], str]:
    """The arrays under a prefix by the rest of their names, and the prefix with what wrappers add."""
    if prefix and all(name.startswith(f"{prefix}.") for name in source if name.startswith(prefix)):
        prefix = f"{prefix.removesuffix('.')}."
    if not any(name.startswith(prefix) for name in source):
        bare, found = _WRAPPER.sub("", prefix), set()
        for name in source:
            rest = _WRAPPER.sub("", name).removeprefix(bare)
            if _WRAPPER.sub("", name).startswith(bare) and name.endswith(rest):
                found.add(name.removesuffix(rest))
        prefix = found.pop() if len(found) == 1 else prefix
    arrays = {name.removeprefix(prefix): x for name, x in source.items() if name.startswith(prefix)}
    if prefix.endswith("module."):  # weight dropping keeps the weights outside the module that it drops them in
        outer = prefix.removesuffix("module.")
        arrays |= {
            name.removeprefix(outer): x
            for name, x in source.items()
            if name.startswith(outer) and re.fullmatch(rf"{_OWN}_raw", name.removeprefix(outer))
        }
    while any(map(_WRAPPER.match, arrays)) and not any(re.fullmatch(_OWN, name) for name in arrays):
        arrays = {_WRAPPER.sub("", name, count=1): x for name, x in arrays.items()}
    return arrays, prefix


def _made(what: str, arrays: dict[str, Any], dtype: str | None, tell: Callable[[str], Any]) -> dict[str, Any]:
    """The arrays under PyTorch's own names, computed where a dict holds what they are made of; and all others."""
    if quantised := [name for name in arrays if "_all_weight_values" in name or "_packed_params" in name]:
        raise TypeError(
            f"{what} is of a quantised module ({quantised[0]}): take the model before it was quantised"
        )
    parts: dict[str, dict[str, str]] = {}
    made = {}
    for name in arrays:
        match = _MADE.fullmatch(name)
        if match is None:
            made[name] = arrays[name]  # surplus
        elif match["own"]:
            parts.setdefault(match["own"], {})[match["end"]] = name
        else:
            parts.setdefault(match["inner"], {})[match["part"]] = name
    if surplus := sorted(made):
        inside = dict.fromkeys(name[: match.start()] for name in made if (match := re.search(rf"{_OWN}$", name)))
        hint = f"; those of modules inside are under prefix={' or '.join(map(repr, inside))}" if inside else ""
        raise ValueError(
            f"{what} has surplus {', '.join(surplus)}, which no LSTM, GRU or RNN of PyTorch has{hint}"
        )
    for own, ends in parts.items():
        values = {end: as_floats(f"{what}: {name}", arrays[name], dtype) for end, name in ends.items()}
        kinds = set(ends)
        if kinds == {""}:
            made[own] = values[""]
        elif "_raw" in kinds and kinds <= {"", "_raw"}:
            tell(f"{own} is {ends['_raw']}, the weights before dropping")
            made[own] = values["_raw"]
        elif kinds == {"_orig", "_mask"}:
            tell(f"{own} is pruned: {ends['_orig']} · {ends['_mask']}")
            made[own] = values["_orig"] * values["_mask"]
        elif kinds in ({"_g", "_v"}, {"original0", "original1"}):
            norm, direction = (values[end] for end in sorted(kinds))
            rows = (len(direction), *(1,) * (direction.ndim - 1))
            if tuple(norm.shape) != rows:
                raise ValueError(
                    f"{what}: {own} is under weight norm with magnitudes of shape {tuple(norm.shape)}; expected "
                    f"{rows}, one for each row: read the live module, or remove the norm before saving"
                )
            tell(f"{own} is under weight norm over its rows: {' and '.join(ends.values())}")
            axes = tuple(range(1, direction.ndim))
            made[own] = direction * (
                norm / namespace(direction).sqrt((direction**2).sum(axis=axes, keepdims=True))
            )
        else:
            raise ValueError(
                f"{what}: {own} is made of {', '.join(ends.values())} by a rule that the dict does not say, as of "
                "spectral norm: give the live module in eval mode, or bake it in before saving "
                "(torch.nn.utils.parametrize.remove_parametrizations, torch.nn.utils.remove_spectral_norm)"
            )
    return made


# --------------------------------------------------------------------------------------------- one direction


def _layer(named: Named, suffix: str, nonlinearity: str) -> Layer:
    back = f"{suffix}_reverse"
    both = (suffix, back) if f"weight_ih{back}" in named else (suffix,)
    return [_direction(named, one, nonlinearity) for one in both]


def _direction(named: Named, suffix: str, nonlinearity: str) -> tuple[Cell, Any]:
    recurrent = named.take(f"weight_hh{suffix}", (None, None)).T
    rows, projection = recurrent.shape[1], None
    h = recurrent.shape[0]
    if f"weight_hr{suffix}" in named:
        projection = named.take(f"weight_hr{suffix}", (h, None)).T
        h = projection.shape[0]
    count = next((k for k in _BLOCKS.values() if rows == k * h), 0)
    if not count:
        raise ValueError(
            f"{named.what}: weight_hh{suffix} has shape {(rows, h)}; expected 4, 3 or 1 times H rows and H columns"
        )
    kernel = named.take(f"weight_ih{suffix}", (rows, None)).T
    biased = any(name.startswith("bias") for name in named.arrays)  # then each layer has both
    take = named.take if biased else lambda name, shape: named.take_or_zeros(name, shape, kernel)
    first, second = (take(f"bias_{side}{suffix}", (rows,)) for side in ("ih", "hh"))
    if projection is not None:
        cell = LSTM(kernel.shape[0], h, projection=projection.shape[1])
        return checked(cell, LSTMVariantParams(kernel, recurrent, first + second, projection=projection))
    if count == 3:
        return gru_of_two_biases(kernel, recurrent, first, second)
    bias = first + second
    return lstm(kernel, recurrent, bias) if count == 4 else simple(kernel, recurrent, bias, nonlinearity)


def to_torch(cell: Any, params: Any) -> Any:
    """The module of PyTorch that computes the same: an `nn.LSTM`, `nn.GRU` or `nn.RNN` with its weights.

    Args:
        cell: an `LSTM` (with a projection or without), `GRU` or `SimpleRNN`; or a `Bidirectional` or `Stack` of
            one kind and size.
        params: its parameters.

    Returns:
        The module, time first, in the parameters' dtype. The biases are all in bias_ih, but for that of a GRU's
        candidate inside the product with the reset gate.

    Raises:
        TypeError: the parameters are not the cell's.
        ValueError: the cell has options that PyTorch's lack, or the layers differ.
        ImportError: PyTorch is not installed.
    """
    layers = taken_apart("PyTorch", cell, params)
    first: Any = layers[0][0][0]
    size = first.hidden_size
    projection = getattr(first, "projection", None)
    plain(
        "PyTorch",
        first,
        LSTM(1, size, projection=projection) if projection else LSTM(1, 1),
        GRU(1, 1),
        SimpleRNN(1, 1),
        SimpleRNN(1, 1, activation="relu"),
    )
    torch = require("torch", "to_torch")
    kind = {LSTM: "LSTM", GRU: "GRU", SimpleRNN: "RNN"}[type(first)]
    options: dict[str, Any] = {"proj_size": projection} if projection else {}
    if kind == "RNN":
        options["nonlinearity"] = first.activation
    module = getattr(torch.nn, kind)(
        first.input_size,
        size,
        num_layers=len(layers),
        bidirectional=len(layers[0]) == 2,
        dropout=cell.dropout if isinstance(cell, Stack) else 0.0,
        dtype=getattr(torch, str(np.dtype(layers[0][0][1].input_kernel.dtype))),
        **options,
    )
    arrays = {
        f"{name}_l{k}{'_reverse' if back else ''}": array
        for k, layer in enumerate(layers)
        for back, (one, own) in enumerate(layer)
        for name, array in _rows(one, to_numpy(own)).items()
    }
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return module


def _rows(cell: Cell, params: Any) -> dict[str, Array]:
    """The arrays of one layer and direction in PyTorch's layout."""
    made = {
        "weight_ih": params.input_kernel.T,
        "weight_hh": params.recurrent_kernel.T,
        "bias_ih": params.bias,
        "bias_hh": second_bias(params),
    }
    if getattr(cell, "projection", None):
        made["weight_hr"] = params.projection.T
    return made


def record_torch(module: Any, x: Any, layer: str | None = None, library: str | None = None) -> History | Any:
    """Run a PyTorch model, and record one of its recurrent layers on the inputs that it received.

    The outputs of the layer in the model are compared with those of its weights here, on the first steps.

    Args:
        module: the model, in eval mode: an `nn.LSTM`, `nn.GRU` or `nn.RNN`, or any module with such inside, or
            with an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell` that it calls step by step. What `torch.compile`
            made runs uncompiled.
        x: what the model is called with; a tuple for several arguments.
        layer: the name of the layer in `module.named_modules()`, where there are several. The "_orig_mod." of
            `torch.compile` and the "module." of `DataParallel` may be left out of it.
        library: "jax" or "numpy", of the history; None for JAX where it is installed. A history for JAX of a short
            pass, such as 1,000 steps of a sequence with 32 units, is computed in NumPy, sooner than JAX compiles.

    Returns:
        The history that `lstmx.record` makes of the layer's own weights, inputs, lengths (of a PackedSequence) and
        initial state: time first, whatever batch_first says; a `StackHistory` or `BidirectionalHistory` where the
        layer has several layers or directions. Where the model calls it several times, each time with the state
        that the last call left, the history is of all their steps.

    Raises:
        TypeError: this is no module of PyTorch, or a scripted or quantised one.
        ValueError: no recurrent layer, or several of which none is named; one that is not called, or several times
            with other states or weights; dropout between layers in training mode; one whose outputs are others
            than its weights give, as of a class with a forward of its own; or float64 for JAX without x64 enabled.
        ImportError: PyTorch is not installed.

    Warns:
        UserWarning: outputs leave the model's at later steps, where rounding grows, as in a chaotic network.
    """
    torch = require("torch", "record_torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; expected a module of PyTorch")
    inside = dict(module.named_modules())
    kinds = tuple(_classes(torch).values())
    found = {name: one for name, one in inside.items() if isinstance(one, kinds)}
    scripted = [name for name, one in inside.items() if isinstance(one, torch.jit.ScriptModule)]
    if layer in scripted or (scripted and not found):
        raise TypeError(
            f"{layer or scripted[0] or 'module'} is scripted, and runs where its layers cannot be listened to: "
            "give the module that was scripted"
        )
    if not found and (quantised := [name for name, one in inside.items() if "quantiz" in type(one).__module__]):
        raise TypeError(f"{quantised[0] or 'module'} is quantised: record the model before it was quantised")
    name, inner = chosen("the model", found, unwrapped(found, layer))
    for given in x if type(x) is tuple else (x,):
        if not isinstance(given, torch.Tensor) and hasattr(given, "__array__"):
            raise TypeError(
                f"x is a {type(given).__name__}; expected what the model takes, tensors: torch.as_tensor(x), in "
                "the dtype of its weights"
            )
    if inner.training and getattr(inner, "dropout", 0.0) and inner.num_layers > 1:
        raise ValueError(
            f"{name or 'the layer'} drops outputs between its layers at random: call module.eval() first"
        )
    calls, weights = _listened(torch, module, x, name, inner)
    nonlinearity = getattr(inner, "nonlinearity", "tanh")
    cell, params = _converted(f"the {type(inner).__name__}", weights, nonlinearity, None)
    called = _joined(torch, name, inner, calls)
    xs, lengths, state, outputs, _ = called
    states = None
    if state is not None:
        fields = [_numpy(field) for field in state]
        if hasattr(inner, "num_layers"):
            states = _states(cell, iter(range(len(fields[0]))), fields)
        else:
            states = cell.state_type(*fields)
    computed = next(iter(weights.values())).dtype  # another than that of the outputs under autocast
    xs, outputs = _numpy(xs), _numpy(outputs.to(computed))
    if len(outputs) != len(xs) or outputs.ndim != xs.ndim:
        raise ValueError(
            f"{name or 'the layer'} is a {type(inner).__name__} whose outputs are of another shape, "
            f"{outputs.shape}, than those of its weights on inputs {xs.shape}: it has a forward of its own, which "
            "is not known here"
        )
    steps = min(len(xs), _PROBE)
    counted = None if lengths is None else np.minimum(lengths, steps)
    theirs = outputs[:steps]
    if getattr(inner, "bidirectional", False):  # its outputs depend on later steps: ask it for those of the first
        piece = called.inputs[:steps]
        if counted is not None:
            counts = torch.as_tensor(counted)
            piece = torch.nn.utils.rnn.pack_padded_sequence(piece, counts, enforce_sorted=False)
        elif inner.batch_first and piece.ndim == 3:
            piece = piece.transpose(0, 1)
        given = (piece,) if state is None else (piece, state if isinstance(inner, torch.nn.LSTM) else state[0])
        with _apart_from_the_model(torch, inner):
            theirs = _numpy(_sequences(torch, inner, _class_of(torch, inner).forward(inner, *given)[0])[0])
    ours = np.asarray(run(cell, params, xs[:steps], states, lengths=counted)[0])
    apart = _apart(ours, theirs)
    if not apart <= 1e-4:
        raise ValueError(
            f"{name or 'the layer'} is a {type(inner).__name__} whose outputs differ by up to {apart:.2g} of the "
            f"largest from those of its weights{_beside(inner)}: it has a forward of its own, which is not known "
            "here, or runs in another precision"
        )
    made = recorded(cell, params, xs, states, library, lengths)
    apart = _apart(np.asarray(made.outputs), outputs)
    if apart > 0.01:
        warnings.warn(
            f"the outputs of {name or 'the layer'} in the model and in this history differ by up to {apart:.2g} "
            "of the largest, not from the first steps on: rounding grows in it from step to step, as in a chaotic "
            "network",
            stacklevel=2,
        )
    return made


class _Call(NamedTuple):
    """One call of a layer: time first, tensors that nothing changes any more."""

    inputs: Any
    lengths: Any
    state: tuple[Any, ...] | None
    outputs: Any
    final: tuple[Any, ...]


def _listened(torch: Any, module: Any, x: Any, name: str, inner: Any) -> tuple[list[_Call], dict[str, Any]]:
    """The calls of a layer while its model runs, and the weights that it computed them with.

    Raises:
        ValueError: it is not called, or not as a layer of PyTorch is, or its weights change on the way.
    """
    what = name or "the layer"
    calls: list[_Call] = []
    weights: dict[str, Any] = {}
    forward, before = inner.forward, vars(inner).get("forward")

    def kept(values: Any) -> tuple[Any, ...]:
        return tuple(one.detach().clone() for one in (values if isinstance(values, tuple) else (values,)))

    def listen(*args: Any, **kwargs: Any) -> Any:
        given: Any = dict(zip(("input", "hx"), args, strict=False)) | kwargs
        if not isinstance(given.get("input"), (torch.Tensor, torch.nn.utils.rnn.PackedSequence)):
            raise ValueError(f"{what} is called without input=, by a forward of its own, which is not known here")
        state = given.get("hx")
        (inputs, lengths), state = _sequences(torch, inner, given["input"]), None if state is None else kept(state)
        made = forward(*args, **kwargs)
        own = _class_of(torch, inner)
        if before is not None or type(inner).forward is not own.forward:
            with _apart_from_the_model(torch, inner):
                plain = own.forward(inner, given["input"], given.get("hx"))
            _same_forward(what, torch, inner, made, plain)
        if hasattr(inner, "num_layers"):
            alone = isinstance(made, (torch.Tensor, torch.nn.utils.rnn.PackedSequence))  # of a subclass
            result, final = (made, ()) if alone else made
            calls.append(_Call(inputs, lengths, state, _sequences(torch, inner, result)[0], kept(final)))
            used = dict(zip(inner._flat_weights_names, inner._flat_weights, strict=True))
        else:
            final = kept(made)
            calls.append(_Call(inputs[None], None, state, final[0][None], final))
            used = {one: _attribute(inner, one) for one in _CELL_ARRAYS}
        used = {one: weight for one, weight in used.items() if weight is not None}
        if not weights:
            weights.update({one: weight.detach().clone() for one, weight in used.items()})
        elif not all(torch.equal(weights[one], weight) for one, weight in used.items()):
            raise ValueError(
                f"{what} has other weights at call {len(calls)} than before: call module.eval() first"
            )
        return made

    compiled = any(
        hasattr(one, "_orig_mod") or getattr(one, "_compiled_call_impl", None) is not None
        for one in module.modules()
    )
    inner.forward = listen  # and no hook, which `inner.forward(x)` would not call
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(_exact(torch, inner))
            module(*x) if type(x) is tuple else module(x)  # a PackedSequence is a tuple, too
    finally:
        del inner.forward
        if before is not None:
            inner.forward = before
    if not calls:
        raise ValueError(f"{what} was not called by the model")
    return calls, weights


def _exact(torch: Any, inner: Any) -> Any:
    """Without cuDNN, which rounds factors to ten bits, where a layer is on a GPU."""
    on_gpu = any(parameter.is_cuda for parameter in inner.parameters())
    return torch.backends.cudnn.flags(enabled=False) if on_gpu else contextlib.nullcontext()


@contextlib.contextmanager
def _apart_from_the_model(torch: Any, inner: Any) -> Iterator[None]:
    """Run a layer by itself: without gradients, and in the precision of its weights."""
    kinds = {parameter.device.type for parameter in inner.parameters()}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_exact(torch, inner))
        yield


def _class_of(torch: Any, inner: Any) -> Any:
    """The class of PyTorch that a layer is of, or of a subclass of."""
    return next(one for one in type(inner).__mro__ if one in _classes(torch).values())


def _sequences(torch: Any, inner: Any, values: Any) -> tuple[Any, Any]:
    """Time first, apart from the model, and the lengths of a PackedSequence."""
    if isinstance(values, torch.nn.utils.rnn.PackedSequence):
        padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(values)
        return padded.detach(), lengths.numpy()
    swapped = getattr(inner, "batch_first", False) and values.ndim == 3
    return (values.transpose(0, 1) if swapped else values).detach().clone(), None


def _same_forward(what: str, torch: Any, inner: Any, mine: Any, plain: Any) -> None:
    """Raise ValueError unless the forward of a subclass gives what that of its class does on the same inputs.

    One that returns less, or of another shape, is left to later.
    """

    def arrays(made: Any) -> list[np.ndarray]:
        packed = isinstance(made, torch.nn.utils.rnn.PackedSequence)
        parts = made if isinstance(made, tuple) and not packed else (made,)
        fields = [one for part in parts for one in (part if type(part) is tuple else (part,))]
        return [_numpy(_sequences(torch, inner, one)[0].double()) for one in fields]

    pairs = [pair for pair in zip(arrays(plain), arrays(mine), strict=False) if pair[0].shape == pair[1].shape]
    apart = max((_apart(*pair) for pair in pairs), default=0.0)
    if apart > 1e-3:
        raise ValueError(
            f"{what} is a {type(inner).__name__} whose outputs or states differ by up to {apart:.2g} of the "
            f"largest from those of nn.{_class_of(torch, inner).__name__} on the same inputs{_beside(inner)}: it "
            "has a forward of its own, which is not known here"
        )


def _joined(torch: Any, name: str, inner: Any, calls: list[_Call]) -> _Call:
    """Calls one after another as one.

    Raises:
        ValueError: one does not start from the state that the last one left.
    """
    if len(calls) == 1:
        return calls[0]
    what = f"{name or 'the layer'} was called {len(calls)} times by the model"
    if getattr(inner, "bidirectional", False) or any(call.lengths is not None for call in calls):
        raise ValueError(f"{what}, in two directions or on packed sequences; expected once")
    for k, (last, call) in enumerate(itertools.pairwise(calls)):
        state = tuple(map(torch.zeros_like, last.final)) if call.state is None else call.state
        if len(state) != len(last.final) or not all(map(torch.equal, last.final, state)):
            raise ValueError(
                f"{what} with states that are not its own: call {k + 2} does not start from what call {k + 1} "
                "left; take its inputs of one call, as by a forward hook, and record these: "
                "lstmx.record(*lstmx.convert.from_torch(module), xs)"
            )
    inputs, outputs = (torch.cat([getattr(call, one) for call in calls]) for one in ("inputs", "outputs"))
    return _Call(inputs, None, calls[0].state, outputs, calls[-1].final)


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The greatest difference of outputs, as a share of the greatest; inf where NaN are elsewhere."""
    if ours.shape != theirs.shape or not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return float("inf")
    if np.array_equal(ours, theirs, equal_nan=True):
        return 0.0
    return float(np.nanmax(np.abs(ours - theirs)) / max(1e-30, np.nanmax(np.abs(theirs))))


def _beside(module: Any) -> str:
    """The arrays that a module holds beside those of its class, in words."""
    own = re.compile(rf"{_OWN}(_raw|_g|_v|_u|_orig|_mask)?|parametrizations\..*")
    leaves = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    surplus = [name for name in leaves if own.fullmatch(name) is None]
    return f", beside which it holds {', '.join(surplus)}" if surplus else ""


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _states(cell: Any, rows: Iterator[int], fields: list[np.ndarray]) -> Any:
    """The states of layers from arrays [layers · directions, B, H], in the order of the layers."""
    if isinstance(cell, Layers):
        return cell.tree([_states(part, rows, fields) for part in cell.parts.values()])
    row = next(rows)
    return cell.state_type(*(field[row] for field in fields))
