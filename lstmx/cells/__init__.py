"""One file per cell: its parameters, state, initialisation and the faces of its one-step map."""

from lstmx.cells.base import Cell as Cell
from lstmx.cells.gru import GRU as GRU
from lstmx.cells.gru import GRUParams as GRUParams
from lstmx.cells.gru import GRUState as GRUState
from lstmx.cells.gru import ResetBeforeParams as ResetBeforeParams
from lstmx.cells.janet import JANET as JANET
from lstmx.cells.janet import JANETParams as JANETParams
from lstmx.cells.janet import JANETState as JANETState
from lstmx.cells.lstm import LSTM as LSTM
from lstmx.cells.lstm_parts import GateRecurrentState as GateRecurrentState
from lstmx.cells.lstm_parts import LSTMParams as LSTMParams
from lstmx.cells.lstm_parts import LSTMState as LSTMState
from lstmx.cells.lstm_parts import LSTMVariantParams as LSTMVariantParams
from lstmx.cells.mgu import MGU as MGU
from lstmx.cells.mgu import MGUParams as MGUParams
from lstmx.cells.mgu import MGUState as MGUState
from lstmx.cells.minimal import MinGRU as MinGRU
from lstmx.cells.minimal import MinGRUParams as MinGRUParams
from lstmx.cells.minimal import MinGRUState as MinGRUState
from lstmx.cells.minimal import MinLSTM as MinLSTM
from lstmx.cells.minimal import MinLSTMParams as MinLSTMParams
from lstmx.cells.minimal import MinLSTMState as MinLSTMState
from lstmx.cells.simple import SimpleRNN as SimpleRNN
from lstmx.cells.simple import SimpleRNNParams as SimpleRNNParams
from lstmx.cells.simple import SimpleRNNState as SimpleRNNState
from lstmx.cells.zoneout import Zoneout as Zoneout
