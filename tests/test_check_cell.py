"""`check_cell` passes the cells of the library and names what is wrong in others."""

import numpy as np
import pytest
from family import NAMES, of_size

import lstmx
from lstmx.cells.recurrence import ResetAfter


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_of_the_library_has_the_derivatives_of_its_equations(name):
    found = lstmx.check_cell(of_size(3, 4)[name], seed=1)
    assert len(found) > 10
    assert max(found.values()) < 1e-13


PLANTED = {
    "forget": ("∂cell/∂forget_gate (factor forget)", "the cotangent of bias"),
    "input": ("∂cell/∂input_gate (factor input)",),
    "candidate": ("∂cell/∂candidate (factor candidate)",),
    "output": ("∂hidden/∂output_gate (factor output)",),
    "carry": ("∂cell/∂cell (factor carry)",),
    "readout": ("∂hidden/∂forget_gate (factor readout)", "∂hidden/∂cell"),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("factor", PLANTED)
def test_a_wrong_factor_is_named(factor):
    class Planted(lstmx.LSTM):
        def linearise(self, params, before, a, after):
            slopes = super().linearise(params, before, a, after)
            return slopes._replace(**{factor: 0.5 * getattr(slopes, factor)})

    with pytest.raises(ValueError, match="derivatives of Planted") as error:
        lstmx.check_cell(Planted(3, 4))
    for words in PLANTED[factor]:
        assert f"{words} is off by" in str(error.value)
    others = {name for words in PLANTED.values() for name in words if "(factor" in name} - set(PLANTED[factor])
    if factor != "readout":
        assert not [name for name in others if name in str(error.value) and "readout" not in name]


@pytest.mark.slow
def test_a_wrong_cotangent_of_a_parameter_and_wrong_parts_are_named():
    def gru_of(kind):
        mine = {"recurrence": property(lambda cell: kind(cell.hidden_size)), "linearise": lstmx.GRU.linearise}
        return type(kind.__name__, (lstmx.GRU,), mine)(3, 4)

    class NoBias(ResetAfter):
        def parameters(self, *given):
            made = super().parameters(*given)
            return made | {"bias": 0 * made["bias"]}

    with pytest.raises(ValueError, match=r"1 of \d+ derivatives of NoBias.* the cotangent of bias is off by"):
        lstmx.check_cell(gru_of(NoBias))

    class NoWay(ResetAfter):
        def ways(self, *given):
            return [{}, *super().ways(*given)[1:]]

    with pytest.raises(ValueError, match="by_gate and along_state together is off by"):
        lstmx.check_cell(gru_of(NoWay))


@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN, lstmx.JANET, lstmx.SLSTM, lstmx.MinLSTM])
def test_other_equations_with_the_old_derivatives_are_refused(kind):
    with pytest.raises(TypeError, match=r"overrides settle of .*: write linearise, too, .*check_cell.*from_step"):
        type("Own", (kind,), {"settle": kind.settle})

    class Both(kind):
        def settle(self, before, gates, a):
            return super().settle(before, gates, a)

        def linearise(self, params, before, a, after):
            return super().linearise(params, before, a, after)

    cell = Both(3, 4)
    params = cell.init(np.random.default_rng(0), "float64")
    xs = np.random.default_rng(1).normal(size=(6, 3))
    np.testing.assert_array_equal(lstmx.run(cell, params, xs)[0], lstmx.run(kind(3, 4), params, xs)[0])


def test_what_is_no_such_cell_is_refused():
    for other in (lstmx.Zoneout(lstmx.GRU(3, 4)), lstmx.Stack([lstmx.GRU(3, 4)])):
        with pytest.raises(TypeError, match="expected one cell that has its derivatives in closed form"):
            lstmx.check_cell(other)
    with pytest.raises(TypeError, match="cell is a int; expected a cell"):
        lstmx.check_cell(3)
