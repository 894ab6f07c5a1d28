"""lstmx: a microscope for recurrent networks. The public names; README.md has the tour."""

from importlib.metadata import version as _version

from lstmx.adjoint import Gradients as Gradients
from lstmx.adjoint import backward as backward
from lstmx.cells import GRU as GRU
from lstmx.cells import LSTM as LSTM
from lstmx.cells import GRUParams as GRUParams
from lstmx.cells import GRUState as GRUState
from lstmx.cells import LSTMParams as LSTMParams
from lstmx.cells import LSTMState as LSTMState
from lstmx.cells import SimpleRNN as SimpleRNN
from lstmx.cells import SimpleRNNParams as SimpleRNNParams
from lstmx.cells import SimpleRNNState as SimpleRNNState
from lstmx.history import History as History
from lstmx.statistics import GateStatistics as GateStatistics
from lstmx.statistics import UnitStatistics as UnitStatistics
from lstmx.statistics import gate_statistics as gate_statistics
from lstmx.unroll import record as record
from lstmx.unroll import run as run

__version__ = _version("lstmx")
