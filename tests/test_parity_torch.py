"""The cells are PyTorch's: outputs, final states and the gradients of every argument."""

import family
import numpy as np
import pytest
from reference import CELLS, assert_close, draw_pass, draw_state, to

import lstmx

torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")

pytestmark = pytest.mark.slow  # runs where .ci/run installs the frameworks
TOLERANCE = 1e-10
MODULES = {lstmx.LSTM: torch.nn.LSTM, lstmx.GRU: torch.nn.GRU, lstmx.SimpleRNN: torch.nn.RNN}


def module_of(cell, params):
    """The PyTorch layer with these weights: its rows are our columns, and it keeps two biases."""
    options = {"proj_size": cell.projection} if getattr(cell, "projection", None) else {}
    layer = MODULES[type(cell)](cell.input_size, cell.hidden_size, dtype=torch.float64, **options)
    second = np.zeros_like(params.bias)
    if isinstance(cell, lstmx.GRU):
        second[-cell.hidden_size :] = params.candidate_bias
    weights = [params.input_kernel.T, params.recurrent_kernel.T, params.bias, second]
    if options:
        weights.append(params.projection.T)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(value))
    return layer


def gradients_of(cell, layer):
    """The layer's gradients in our layout; those of its two biases are equal where they are summed."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    kernel, recurrent, bias, second = (getattr(layer, name).grad.numpy() for name in names)
    if isinstance(cell, lstmx.GRU):
        return lstmx.GRUParams(kernel.T, recurrent.T, bias, second[-cell.hidden_size :])
    kind = type(cell.parameter_shapes())
    if getattr(cell, "projection", None):
        return kind(kernel.T, recurrent.T, bias, projection=layer.weight_hr_l0.grad.numpy().T)
    return kind(kernel.T, recurrent.T, bias)


@pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("batch", [(), (4,)], ids=["one", "batch"])
def test_passes_and_gradients_are_those_of_pytorch(kind, library, batch):
    agrees(*draw_pass(kind, length=9, batch=batch, features=3, hidden=5), library)


def test_an_lstm_with_a_projection_is_pytorch_s(library):
    cell = lstmx.LSTM(3, 5, projection=2)
    params, state, xs, _ = family.draw(cell, (4,), length=9)
    agrees(cell, params, xs, state, library)


def agrees(cell, params, xs, state, library):
    """Raise unless a pass and all its gradients are those of PyTorch's layer."""
    draws, batch = np.random.default_rng(1), xs.shape[1:-1]
    outputs_cotangent = draws.normal(size=(9, *batch, cell.output_size))
    final_cotangent = draw_state(cell, draws, batch)

    layer = module_of(cell, params)
    xs_t = torch.tensor(xs, requires_grad=True)
    state_t = [torch.tensor(field, requires_grad=True) for field in state]
    given = tuple(field[None] for field in state_t)
    outputs_t, final_t = layer(xs_t, given if len(given) == 2 else given[0])
    final_t = final_t if isinstance(final_t, tuple) else (final_t,)
    loss = (outputs_t * torch.tensor(outputs_cotangent)).sum()
    loss = loss + sum((f[0] * torch.tensor(v)).sum() for f, v in zip(final_t, final_cotangent, strict=True))
    loss.backward()

    history = lstmx.record(cell, *to(library, (params, xs, state)))
    outputs, final = lstmx.run(cell, *to(library, (params, xs, state)))
    for states in (history.final, final):
        assert_close(states, type(state)(*(field[0].detach().numpy() for field in final_t)), TOLERANCE)
    for hidden in (history.hidden_state, outputs):
        assert_close(hidden, outputs_t.detach().numpy(), TOLERANCE)

    gradients = lstmx.backward(history, *to(library, (outputs_cotangent, final_cotangent)))
    assert_close(gradients.parameters, gradients_of(cell, layer), TOLERANCE)
    assert_close(gradients.inputs, xs_t.grad.numpy(), TOLERANCE)
    assert_close(gradients.initial, type(state)(*(field.grad.numpy() for field in state_t)), TOLERANCE)
