"""How parameters start: schemes that set a network's memory, and the defaults of other frameworks.

A scheme is a function `(cell, params, draws) -> params`; `cell.init(key, scheme=...)` applies one or several to
freshly drawn parameters. What a scheme does to memory is said as retention, the mean over units of f^ℓ: what is
left of a unit's state after ℓ steps if nothing but its retention gate f acts on it (an LSTM's forget gate, a GRU's
update gate).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lstmx.arrays import Array
from lstmx.cells.activations import bias_of_gate
from lstmx.checks import finite_number, one_of
from lstmx.contents import publish
from lstmx.draws import Draws

__all__ = ["chrono", "defaults_of", "identity", "orthogonal", "uniform_gates", "unit_forget_bias"]

Scheme = Callable[[Any, Any, Draws], Any]


def chrono(longest: float) -> Scheme:
    """Chrono initialisation: retention spread over time scales up to `longest` steps.

    b_f = ln u with u uniform in [1, longest − 1], and b_i = −b_f where the cell has an input gate. Then
    f = u / (1 + u), a time scale of about u + ½ steps. With `longest` 1000 the mean retention is 0.951 after 10
    steps, 0.724 after 100 and 0.149 after 1000; with 100 it is 0.733, 0.150 and 4e-6. Hard gates get the biases
    with which they are the same f and i.

    Args:
        longest: T_max, the longest dependency expected, in steps; over 2.

    Returns:
        The scheme, for a cell with a retention gate.

    Raises:
        ValueError: longest is not a finite number over 2; when applied, the cell has no retention gate.

    References:
        Tallec & Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
    """
    finite_number("longest", longest, "a finite number of steps over 2", lambda x: x > 2)

    def scheme(cell: Any, params: Any, draws: Draws) -> Any:
        gate = _retention(cell, "chrono")
        biases = draws.xp.log(draws.uniform((cell.hidden_size,), params.bias.dtype, 1.0, longest - 1.0))
        params = _with_retention(cell, params, biases)
        if "input_gate" in cell.gate_blocks and cell.layout.gates[gate][1] > 0:
            params = _with_bias(cell, params, "input_gate", bias_of_gate(cell.gate_activation, -biases))
        return params

    return scheme


def uniform_gates() -> Scheme:
    """Uniform gate initialisation: retention gates that start spread evenly between 0 and 1.

    b_f = −ln(1/u − 1) with u uniform in [1/H, 1 − 1/H], so f = u; a hard gate gets the bias at which it is u. The
    mean retention after ℓ steps is close to 1 / (ℓ + 1), a power law: for 256 units 0.500 after 1 step, 0.0878
    after 10 and 0.00672 after 100.

    Returns:
        The scheme, for a cell with a retention gate and at least two units.

    References:
        Gu, Gulcehre, Paine, Hoffman & Pascanu, "Improving the gating mechanism of recurrent neural networks", ICML
        2020.
    """

    def scheme(cell: Any, params: Any, draws: Draws) -> Any:
        _retention(cell, "uniform_gates")
        units = cell.hidden_size
        if units < 2:
            raise ValueError(f"uniform_gates draws from [1/H, 1 − 1/H]; {cell} has H = {units}, not 2 or more")
        u = draws.uniform((units,), params.bias.dtype, 1 / units, 1 - 1 / units)
        return _with_retention(cell, params, draws.xp.log(u / (1 - u)))

    return scheme


def unit_forget_bias(value: float = 1.0) -> Scheme:
    """A bias of `value` for the retention gate of every unit, whose state then decays by σ(value) a step.

    A hard gate gets the same bias, as in Keras, and is what its `gate_activation` makes of it. The time scale
    −1/ln σ(value) is 1.4 steps for 0, 3.2 for 1, 7.9 for 2, 20.6 for 3 and 149 for 5.

    Args:
        value: the bias.

    Returns:
        The scheme, for a cell with a retention gate.

    Raises:
        ValueError: value is not finite; when applied, the cell has no retention gate.

    References:
        Jozefowicz, Zaremba & Sutskever, "An empirical exploration of recurrent network architectures", ICML 2015.
    """
    finite_number("value", value)

    def scheme(cell: Any, params: Any, draws: Draws) -> Any:
        _retention(cell, "unit_forget_bias")
        filled = draws.xp.full((cell.hidden_size,), value, dtype=params.bias.dtype)
        if cell.gate_activation != "sigmoid":
            return _with_bias(cell, params, cell.retention_gate, filled)
        return _with_retention(cell, params, filled)

    return scheme


def identity(gain: float = 1.0) -> Scheme:
    """Recurrent weights of `gain` times the identity, block by block.

    A SimpleRNN near its zero state then keeps what it holds, and one with ReLU wherever its state is positive: the
    one-step Jacobian is gain · I, and retention gain^ℓ.

    Args:
        gain: the factor.

    Returns:
        The scheme.

    Raises:
        ValueError: gain is not finite; when applied, the cell has no recurrent weights, or a
            projection.

    References:
        Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified linear units", arXiv
        1504.00941, 2015.
    """
    finite_number("gain", gain)

    def scheme(cell: Any, params: Any, draws: Draws) -> Any:
        kernel, xp = _recurrent(cell, params, "identity"), draws.xp
        if len(kernel) != cell.hidden_size:
            raise ValueError(f"identity makes square blocks; the recurrent kernel of {cell} is {kernel.shape}")
        unit = gain * xp.eye(cell.hidden_size, dtype=kernel.dtype)
        return params._replace(recurrent_kernel=xp.concat([unit] * (kernel.shape[1] // len(unit)), axis=-1))

    return scheme


def orthogonal(gain: float = 1.0) -> Scheme:
    """Recurrent weights of `gain` times a random orthogonal matrix, drawn anew for each block.

    A SimpleRNN near its zero state then has a one-step Jacobian whose singular values are all `gain`. With gain 1
    this is what `init` draws anyway.

    Args:
        gain: the factor.

    Returns:
        The scheme.

    Raises:
        ValueError: gain is not finite; when applied, the cell has no recurrent weights.

    References:
        Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
        networks", ICLR 2014.
    """
    finite_number("gain", gain)

    def scheme(cell: Any, params: Any, draws: Draws) -> Any:
        kernel = _recurrent(cell, params, "orthogonal")
        size = cell.hidden_size
        drawn = draws.orthogonal(size, kernel.shape[1] // size, kernel.dtype, rows=len(kernel))
        return params._replace(recurrent_kernel=gain * drawn)

    return scheme


def defaults_of(framework: str) -> Scheme:
    """The distribution that a framework's own layer draws its parameters from, whatever the cell's options say.

    - "pytorch": kernels and biases uniform in ±1/√H; where PyTorch keeps two biases, their sum.
    - "keras": Glorot-uniform input kernel and orthogonal recurrent kernel, each drawn as one matrix for all gates;
      zero biases, but 1 for an LSTM's forget gate.
    - "flax" (linen): LeCun-normal input kernel and orthogonal recurrent kernel per gate, zero biases.
    - "haiku": truncated-normal kernels, zero biases, and the 1 that its LSTM adds to the forget gate as it runs.

    Only the distribution is the framework's: Haiku's GRU resets before the recurrent product and its VanillaRNN
    has ReLU units, which are other cells than those here.

    Args:
        framework: one of the four words.

    Returns:
        The scheme.

    Raises:
        ValueError: another word; when applied, the cell has no recurrent weights.

    Example:
        >>> import lstmx
        >>> params = lstmx.LSTM(3, 8).init(0, scheme=lstmx.schemes.defaults_of("keras"))
        >>> float(params.bias[8]), float(params.bias[0])
        (1.0, 0.0)
    """
    one_of("framework", framework, tuple(_FRAMEWORKS))

    def scheme(cell: Any, params: Any, draws: Draws) -> Any:
        _recurrent(cell, params, f"defaults_of({framework!r})")
        return _FRAMEWORKS[framework](cell, params, draws)

    return scheme


def _pytorch(cell: Any, params: Any, draws: Draws) -> Any:
    limit = cell.hidden_size**-0.5

    def uniform(shape: tuple[int, ...]) -> Array:
        return draws.uniform(shape, params.bias.dtype, -limit, limit)

    bias = uniform(params.bias.shape)
    if "candidate_bias" in params._fields:  # that of the candidate's input side stands alone
        gates = 2 * cell.hidden_size
        bias = draws.xp.concat([bias[:gates] + uniform((gates,)), bias[gates:]])
    else:
        bias = bias + uniform(bias.shape)
    drawn = params._replace(
        input_kernel=uniform(params.input_kernel.shape),
        recurrent_kernel=uniform(params.recurrent_kernel.shape),
        bias=bias,
    )
    if "candidate_bias" in params._fields:
        drawn = drawn._replace(candidate_bias=uniform((cell.hidden_size,)))
    if getattr(params, "projection", None) is not None:
        drawn = drawn._replace(projection=uniform(params.projection.shape))
    return drawn


def _keras(cell: Any, params: Any, draws: Draws) -> Any:
    dtype, (h, columns) = params.bias.dtype, params.recurrent_kernel.shape
    drawn = _without_biases(cell, params, draws)._replace(
        input_kernel=draws.glorot_uniform(cell.input_size, columns, 1, dtype),
        recurrent_kernel=draws.orthogonal_rows(h, columns, dtype),
    )
    return unit_forget_bias()(cell, drawn, draws) if "forget_gate" in cell.gate_blocks else drawn


def _flax(cell: Any, params: Any, draws: Draws) -> Any:
    scale = 1 / (_TRUNCATED * math.sqrt(cell.input_size))
    input_kernel = scale * draws.truncated_normal(params.input_kernel.shape, params.bias.dtype)
    return orthogonal()(cell, _without_biases(cell, params, draws)._replace(input_kernel=input_kernel), draws)


def _haiku(cell: Any, params: Any, draws: Draws) -> Any:
    d, h = cell.input_size, cell.output_size
    if "forget_gate" in cell.gate_blocks:  # one Linear layer reads [x, h]
        scales = [1 / math.sqrt(d + h)] * 2
    elif cell.gate_blocks:
        scales = [1 / (_TRUNCATED * math.sqrt(fan_in)) for fan_in in (d, h)]
    else:
        scales = [1 / math.sqrt(fan_in) for fan_in in (d, h)]
    kernels = (
        scale * draws.truncated_normal(kernel.shape, kernel.dtype)
        for scale, kernel in zip(scales, params[:2], strict=True)
    )
    drawn = _without_biases(cell, params, draws)
    drawn = drawn._replace(**dict(zip(params._fields[:2], kernels, strict=True)))
    return unit_forget_bias()(cell, drawn, draws) if "forget_gate" in cell.gate_blocks else drawn


_TRUNCATED = 0.87962566103423978  # standard deviation of a standard normal cut off at ±2
_FRAMEWORKS: dict[str, Scheme] = {"pytorch": _pytorch, "keras": _keras, "flax": _flax, "haiku": _haiku}


def _without_biases(cell: Any, params: Any, draws: Draws) -> Any:
    zeros = {name: draws.xp.zeros_like(getattr(params, name)) for name in params._fields if "bias" in name}
    return params._replace(**zeros)


def _retention(cell: Any, scheme: str) -> str:
    """The retention gate of a cell that has one which can be set."""
    gate = cell.retention_gate
    if gate is None or cell.layout.gates[gate] is None:
        which = f"a {type(cell).__name__}" if gate is None else cell
        raise ValueError(f"{scheme} sets the gate that multiplies the old state; {which} has none")
    return gate


def _recurrent(cell: Any, params: Any, scheme: str) -> Array:
    """The recurrent kernel of a cell that has one."""
    if "recurrent_kernel" not in params._fields:
        raise ValueError(f"{scheme} draws recurrent weights; a {type(cell).__name__} has none")
    return params.recurrent_kernel


def _with_retention(cell: Any, params: Any, values: Array) -> Any:
    """The parameters with biases that make the retention gate σ(values) [H] where all else is zero."""
    for gate, biases in cell.retention_biases(values).items():
        params = _with_bias(cell, params, gate, biases)
    return params


def _with_bias(cell: Any, params: Any, gate: str, values: Array) -> Any:
    """The parameters with `values` [H] as the bias of a gate; its negative where the gate is σ(−a)."""
    block, sign = cell.layout.gates[gate]
    start = block * cell.hidden_size
    xp = values.__array_namespace__()
    bias = xp.concat([params.bias[:start], sign * values, params.bias[start + cell.hidden_size :]])
    return params._replace(bias=bias)


publish(__name__)
