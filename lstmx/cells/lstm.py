"""The LSTM and its variants: today's frameworks' LSTM unless options say otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from lstmx.arrays import Array, columns, leaves, log, namespace, solve
from lstmx.cells.activations import activated, gain_at, gate_at, gates_of
from lstmx.cells.base import Cell, Change, Layout
from lstmx.cells.lstm_parts import (
    GateRecurrentState,
    LSTMGates,
    LSTMParams,
    LSTMSlopes,
    LSTMState,
    LSTMVariantParams,
    check_options,
    layout_of,
    own_blocks,
    recurrence_of,
    slopes_of,
)
from lstmx.cells.readout import layer_normalised
from lstmx.cells.recurrence import blocks, plus
from lstmx.checks import finite_number, one_of
from lstmx.draws import Draws

VARIANTS: dict[str, dict[str, Any]] = {
    "V": {"peepholes": True},
    "NIG": {"peepholes": True, "input_gate": False},
    "NFG": {"peepholes": True, "forget_gate": False},
    "NOG": {"peepholes": True, "output_gate": False},
    "NIAF": {"peepholes": True, "candidate_activation": "identity"},
    "NOAF": {"peepholes": True, "output_activation": "identity"},
    "CIFG": {"peepholes": True, "coupled": True},
    "NP": {},
    "FGR": {"peepholes": True, "full_gate_recurrence": True},
}


@dataclass(frozen=True, repr=False)
class LSTM(Cell[LSTMParams | LSTMVariantParams, LSTMState | GateRecurrentState]):
    """Long short-term memory.

        a = x W + h U + b                     blocks i, f, g, o
        i, f, o = σ(a_i), σ(a_f), σ(a_o);     g = tanh(a_g)
        c_t = f ∘ c_{t-1} + i ∘ g
        h_t = o ∘ tanh(c_t)

    Without options this is the LSTM of today's frameworks, which is the "NP" (no peepholes) of Greff et al.; their
    vanilla LSTM has peepholes. `LSTM.variant` gives their nine by name.

    Attributes:
        input_size: number of features D of x_t.
        hidden_size: number of units H.
        forget_bias: value that `init` stores as the forget gate's bias (as its negative for the input gate's where
            the two are coupled); nothing is added at run time. Without a forget gate it has no place.
        peepholes: gates see the cell state: a_i and a_f get p_i ∘ c_{t-1} and p_f ∘ c_{t-1}, and a_o gets
            p_o ∘ c_t. `init` sets them to 0.
        coupled: f = 1 − i; there is no block f.
        input_gate: False for i = 1.
        forget_gate: False for f = 1, the LSTM of 1997.
        output_gate: False for o = 1.
        candidate_activation: of g, "tanh", "relu" for max(0, a), or "identity".
        output_activation: of c_t in h_t, "tanh", "relu" or "identity". What Keras calls activation="relu" is both.
        full_gate_recurrence: a_i, a_f and a_o get (i, f, o)_{t-1} R as well; the gates are part of the state, and
            are 0 in the zero state. It takes all three gates.
        projection: columns P of h_t = (o ∘ tanh(c_t)) P, at most H; None for no projection (Sak et al.). Outputs,
            and what the recurrent kernel reads, are then [P].
        layer_norm: a = LN(h U) ∘ α_h + LN(x W) ∘ α_x + b and h_t = o ∘ tanh(LN(c_t) ∘ α_c + β_c), each LN over all
            units, that of a sum over its blocks together (Ba et al.; their three shifts of the pre-activations are
            one, b). 10⁻⁵ is added to each variance. A history then holds h U, x W and the normalised c_t as well.
        gate_activation: of i, f and o: "sigmoid" for σ; "hard_sigmoid" for (a + 3) / 6 cut off at 0 and 1, that of
            Keras 3, JAX and PyTorch; "hard_sigmoid_0.2" for 0.2 a + 0.5 cut off likewise, that of Keras 2 and the
            default of ONNX. At a kink, of ReLU too, the slope is taken as 0.

    Raises:
        ValueError: options that exclude each other, or another word or number than those above.

    References:
        Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
        Gers, Schmidhuber & Cummins, "Learning to forget", Neural Computation 12(10), 2000.
        Gers & Schmidhuber, "Recurrent nets that time and count", IJCNN 2000, for peepholes.
        Sak, Senior & Beaufays, "Long short-term memory based recurrent neural network architectures for large
        vocabulary speech recognition", arXiv 1402.1128, 2014, for the projection.
        Ba, Kiros & Hinton, "Layer normalization", arXiv 1607.06450, 2016, supplementary material, for layer_norm.
        Greff, Srivastava, Koutník, Steunebrink & Schmidhuber, "LSTM: a search space odyssey", IEEE Transactions on
        Neural Networks and Learning Systems 28(10), 2017 (arXiv 1503.04069), for the variants.
    """

    input_size: int
    hidden_size: int
    forget_bias: float = 1.0
    peepholes: bool = False
    coupled: bool = False
    input_gate: bool = True
    forget_gate: bool = True
    output_gate: bool = True
    candidate_activation: str = "tanh"
    output_activation: str = "tanh"
    full_gate_recurrence: bool = False
    projection: int | None = None
    layer_norm: bool = False
    gate_activation: str = "sigmoid"

    gate_type: ClassVar[type] = LSTMGates

    def __post_init__(self) -> None:
        super().__post_init__()
        finite_number("forget_bias", self.forget_bias)
        object.__setattr__(self, "forget_bias", float(self.forget_bias))  # of NumPy's numbers, too
        check_options(self)
        object.__setattr__(self, "_layout", layout_of(self))  # read at every step, and so the next
        object.__setattr__(self, "_recurrence", recurrence_of(self))

    @staticmethod
    def variant(name: str, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> LSTM:
        """One of the nine LSTMs of Greff et al. (2017).

        - "V": vanilla, with peepholes. All others but "NP" have them, too.
        - "NIG", "NFG", "NOG": no input, forget or output gate.
        - "NIAF", "NOAF": no activation function of the input (the candidate), or of the output.
        - "CIFG": coupled input and forget gate, f = 1 − i.
        - "NP": no peepholes. This is the LSTM of today's frameworks, and `LSTM(...)` without options.
        - "FGR": full gate recurrence.

        Args:
            name: one of the nine words.
            input_size: number of features D of x_t.
            hidden_size: number of units H.
            forget_bias: as for `LSTM`.

        Raises:
            ValueError: another word.

        Example:
            >>> import lstmx
            >>> lstmx.LSTM.variant("NP", input_size=3, hidden_size=8) == lstmx.LSTM(3, 8)
            True
        """
        one_of("name", name, tuple(VARIANTS))
        return LSTM(input_size, hidden_size, forget_bias, **VARIANTS[name])

    @staticmethod
    def variants(input_size: int, hidden_size: int, forget_bias: float = 1.0) -> dict[str, LSTM]:
        """All nine LSTMs of Greff et al. (2017) by name, "V" first: what `lstmx.compare` takes.

        Args:
            input_size: number of features D of x_t.
            hidden_size: number of units H.
            forget_bias: as for `LSTM`.

        Example:
            >>> import lstmx
            >>> list(lstmx.LSTM.variants(input_size=3, hidden_size=8))
            ['V', 'NIG', 'NFG', 'NOG', 'NIAF', 'NOAF', 'CIFG', 'NP', 'FGR']
        """
        return {name: LSTM.variant(name, input_size, hidden_size, forget_bias) for name in VARIANTS}

    # --------------------------------------------------------------------------------------- structure

    @property
    def state_type(self) -> type[Any]:
        return GateRecurrentState if self.full_gate_recurrence else LSTMState

    @property
    def layout(self) -> Layout:
        return self.__dict__["_layout"]

    @property
    def field_sizes(self) -> tuple[int, ...]:
        sizes = (self.hidden_size,) * len(self.state_type._fields)
        return (self.projection, *sizes[1:]) if self.projection else sizes

    @property
    def preactivation_size(self) -> int:
        whole = super().preactivation_size
        return whole - self.hidden_size + self.projection if self.projection else whole

    @property
    def recurrence(self) -> Any:
        return self.__dict__["_recurrence"]

    @property
    def bounded(self) -> bool:
        if not self.forget_gate or self.output_activation != "tanh" or self.peepholes:
            return False
        return self.gate_activation == "sigmoid" or self.coupled  # a hard forget gate of 1 lets c_t grow for ever

    def parameter_shapes(self) -> Any:
        d, h, count = self.input_size, self.hidden_size, own_blocks(self)
        affine: Any = (d, count * h), (self.output_size, count * h), (count * h,)
        if not (self.peepholes or self.full_gate_recurrence or self.projection or self.layer_norm):
            return LSTMParams(*affine)
        norms: Any = ((count * h,), (count * h,), (h,), (h,)) if self.layer_norm else ()
        others: Any = (
            ((count - 1) * h,) if self.peepholes else None,
            (3 * h, 3 * h) if self.full_gate_recurrence else None,
            (h, self.projection) if self.projection else None,
        )
        return LSTMVariantParams(
            *affine,
            *others,
            *norms,
        )

    def draw(self, draws: Draws, dtype: Any) -> Any:
        h, xp, shapes = self.hidden_size, draws.xp, self.parameter_shapes()
        count, zeros = own_blocks(self), xp.zeros(h, dtype=dtype)
        place, bias = self.layout.gates["forget_gate"], [zeros] * count
        if place is not None:
            bias[place[0]] = xp.full(h, place[1] * self.forget_bias, dtype=dtype)
        affine = (
            draws.glorot_uniform(self.input_size, h, count, dtype),
            draws.orthogonal(h, count, dtype, rows=self.output_size),
            xp.concat(bias),
        )
        if isinstance(shapes, LSTMParams):
            return LSTMParams(*affine)
        gains = (xp.ones(shape, dtype=dtype) for shape in shapes[-4:-1]) if self.layer_norm else ()
        return LSTMVariantParams(
            *affine,
            xp.zeros(shapes.peephole, dtype=dtype) if self.peepholes else None,
            draws.glorot_uniform(3 * h, h, 3, dtype) if self.full_gate_recurrence else None,
            draws.glorot_uniform(h, self.projection, 1, dtype) if self.projection else None,
            *gains,
            *((zeros,) if self.layer_norm else ()),
        )

    # --------------------------------------------------------------------------------------- equations

    def driven(self, params: Any, before: Any, drive: Array) -> Array:
        return self._completed(params, before, self.recurrence.driven(params, before, drive))

    def joined(self, params: LSTMParams) -> Callable[[Any, Array], Array]:
        preactivations = self.recurrence.joined(params)
        if not (self._output_sees or self._reads_out):
            return preactivations
        return lambda before, x: self._completed(params, before, preactivations(before, x))

    def unfolded(self, params: Any) -> Callable[[Any, Array, Change], tuple[Any, Any, Array]]:
        preactivations = self.recurrence.joined(params)  # without p_o ∘ c_t: c_t may be changed before o sees it

        def step(before: Any, x: Array, change: Change) -> tuple[Any, Any, Array]:
            a = preactivations(before, x)
            gates = change(self.gates(a), ("input_gate", "forget_gate", "candidate"))
            c = self._cell_state(before, gates)
            c = change(self._state_of(gates, c, self._last_blocks(params, gates, c)), ("cell",)).cell
            if self._output_sees:
                a = self._seeing(params, a, c)
                gates = gates._replace(output_gate=self.gates(a).output_gate)
            gates = change(gates, ("output_gate",))
            last = self._last_blocks(params, gates, c)
            after = self._state_of(gates, c, last)
            after = change(after, tuple(name for name in after._fields if name != "cell"))
            return after, gates, namespace(a).concat([a, *last], axis=-1)

        return step

    @property
    def _output_sees(self) -> bool:
        """Whether the output gate has a peephole."""
        return self.peepholes and self.output_gate

    @property
    def _reads_out(self) -> bool:
        """Whether there is something between c_t and h_t that has blocks of its own."""
        return self.layer_norm or self.projection is not None

    def _completed(self, params: Any, before: Any, a: Array) -> Array:
        """The pre-activations with what of them is computed from c_t: p_o ∘ c_t, and the last blocks."""
        if not (self._output_sees or self._reads_out):
            return a
        gates = self.gates(a)
        c = self._cell_state(before, gates)
        if self._output_sees:
            a = self._seeing(params, a, c)
        if not self._reads_out:
            return a
        gates = self.gates(a) if self._output_sees else gates
        return namespace(a, c).concat([a, *self._last_blocks(params, gates, c)], axis=-1)

    def _last_blocks(self, params: Any, gates: LSTMGates, c: Array) -> list[Array]:
        """What stands between c_t and h_t: n_t with layer normalisation, h_t with a projection."""
        last = [layer_normalised(params, c)] if self.layer_norm else []
        if self.projection is not None:
            last.append(self._shown(gates, c, last) @ params.projection)
        return last

    def _shown(self, gates: LSTMGates, c: Array, last: list[Array]) -> Array:
        """The output gate times the output activation of n_t, the first of the last blocks, or of c_t."""
        seen = last[0] if self.layer_norm else c
        return gates.output_gate * activated(self.output_activation, seen)

    @staticmethod
    def _cell_state(before: Any, gates: LSTMGates) -> Array:
        """c_t."""
        return gates.forget_gate * before.cell + gates.input_gate * gates.candidate

    def _seeing(self, params: Any, a: Array, c: Array) -> Array:
        """The pre-activations with p_o ∘ c in their last block."""
        h = self.hidden_size
        seen = params.peephole[-h:] * c
        return namespace(a, seen).concat([a[..., :-h], a[..., -h:] + seen], axis=-1)

    def gates(self, a: Array) -> LSTMGates:
        names, at = self.layout.blocks, self.layout.blocks.index("candidate")
        own = a[..., : own_blocks(self) * self.hidden_size] if self._reads_out else a
        found = gates_of(own, self.hidden_size, self.gate_activation, self.candidate_activation, at)
        if len(found) == len(LSTMGates._fields):
            return LSTMGates(*found)
        made: dict[Any, Any] = dict(zip(names, found, strict=False))  # names of the last blocks follow
        one = namespace(a).ones_like(made["candidate"])
        if self.coupled:
            made["forget_gate"] = 1 - made["input_gate"]
        return LSTMGates(*(made.get(name, one) for name in LSTMGates._fields))

    def settle(self, before: Any, gates: LSTMGates, a: Array) -> Any:
        last = []
        if self._reads_out:
            sizes = (self.hidden_size,) * self.layer_norm + (self.output_size,) * (self.projection is not None)
            last = columns(a[..., a.shape[-1] - sum(sizes) :], sizes)
        return self._state_of(gates, self._cell_state(before, gates), last)

    def _state_of(self, gates: LSTMGates, c: Array, last: list[Array]) -> Any:
        """The state whose c_t is `c`."""
        h = self._shown(gates, c, last) if self.projection is None else last[-1]
        if not self.full_gate_recurrence:
            return LSTMState(h, c)
        return GateRecurrentState(h, c, gates.input_gate, gates.forget_gate, gates.output_gate)

    def linearise(self, params: Any, before: Any, a: Array, after: Any) -> LSTMSlopes:
        return slopes_of(self, params, before, a, after)

    # ------------------------------------------------------------------------------- closed forms

    def log_determinant(self, params: Any, slopes: LSTMSlopes) -> Array | None:
        # With c as the pivot, what is left for h is ∂h_t/∂h_{t-1} along the output gate alone.
        if self.full_gate_recurrence or self._reads_out:
            return None
        xp = namespace(*leaves(slopes), *params)
        if slopes.output is None:
            return xp.full_like(slopes.carry[..., 0], -math.inf)
        output_kernel = params.recurrent_kernel[:, -self.hidden_size :]
        own = log(xp.abs(self._carried(params, slopes))) + log(xp.abs(slopes.output))
        return xp.sum(own, axis=-1) + xp.linalg.slogdet(output_kernel)[1]

    def newton_step(self, params: Any, slopes: LSTMSlopes, residual: Any) -> Any:
        # ∂c/∂c is diagonal: with c eliminated, a system of H unknowns is left.
        # Without a forget gate, or with a hard one, 1 − ∂c/∂c may be 0.
        carried = not self.forget_gate or self.gate_activation != "sigmoid"
        if self.full_gate_recurrence or self._reads_out or carried:
            return None
        xp, h = namespace(*params, *leaves(slopes)), self.hidden_size
        kernels = [xp.swapaxes(block, 0, 1) for block in blocks(params.recurrent_kernel, h)]

        def rows(field: str) -> Any:
            wires = self.layout.from_blocks.items()
            return plus(
                *(getattr(slopes, name)[..., :, None] * kernels[k] for name, (to, k) in wires if to == field)
            )

        cell, carry = rows("cell"), self._carried(params, slopes)
        leak = 1 - carry
        own = rows("hidden")
        matrix = xp.eye(h, dtype=carry.dtype) - (slopes.readout / leak)[..., :, None] * cell
        matrix = matrix if own is None else matrix - own
        handed = slopes.readout * carry * residual.cell / leak
        d_h = solve(matrix, residual.hidden + handed)
        return LSTMState(d_h, (residual.cell + (cell @ d_h[..., None])[..., 0]) / leak)

    def _carried(self, params: Any, slopes: LSTMSlopes) -> Array:
        """∂c_t/∂c_{t-1} at fixed h_{t-1}: along the forget gate, and through peepholes."""
        return plus(slopes.carry, *self.recurrence.seen(params, slopes)) if self.peepholes else slopes.carry

    def critical_gain(self, biases: dict[str, float]) -> float:
        # At zero ∂(h, c) has the eigenvalues f + i o eig(U_g), and H zeros; peepholes see a state of 0.
        if self.full_gate_recurrence:
            raise ValueError("an LSTM with full gate recurrence has no closed form: its zero state is not at rest")
        if self._reads_out:
            raise ValueError(f"{self} has no closed form: a projection or a normalised zero state")
        if "relu" in (self.candidate_activation, self.output_activation):
            raise ValueError(f"{self} has no derivative at zero, so no gain at which zero gets unstable")
        signed = biases | ({"forget_gate": -biases["forget_gate"]} if "forget_gate" in biases else {})
        gates = {name: gate_at(self.gate_activation, bias) for name, bias in signed.items()}
        into = gates.get("input_gate", 1.0)
        lost = into if self.coupled else gates.get("forget_gate", 0.0)  # 1 − f
        return gain_at(lost, into * gates.get("output_gate", 1.0))
