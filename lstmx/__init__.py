"""lstmx: a microscope for recurrent networks. The public names; README.md has the tour."""

from importlib.metadata import version as _version

from lstmx import plot as plot
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
from lstmx.comparison import Comparison as Comparison
from lstmx.comparison import compare as compare
from lstmx.excerpt import Excerpt as Excerpt
from lstmx.gradients import GateShare as GateShare
from lstmx.gradients import GradientFlow as GradientFlow
from lstmx.gradients import Influence as Influence
from lstmx.gradients import PathSpectrum as PathSpectrum
from lstmx.gradients import gate_kernel as gate_kernel
from lstmx.gradients import gradient_flow as gradient_flow
from lstmx.gradients import highway as highway
from lstmx.gradients import influence as influence
from lstmx.gradients import path_spectrum as path_spectrum
from lstmx.history import History as History
from lstmx.sharding import shard_batch as shard_batch
from lstmx.statistics import GateStatistics as GateStatistics
from lstmx.statistics import UnitStatistics as UnitStatistics
from lstmx.statistics import gate_statistics as gate_statistics
from lstmx.statistics import summarise as summarise
from lstmx.tasks import Batch as Batch
from lstmx.tasks import Task as Task
from lstmx.tasks import adding_problem as adding_problem
from lstmx.tasks import copy_memory as copy_memory
from lstmx.tasks import next_character as next_character
from lstmx.tasks import next_step as next_step
from lstmx.training import Model as Model
from lstmx.training import ModelParams as ModelParams
from lstmx.training import ReadoutParams as ReadoutParams
from lstmx.training import Training as Training
from lstmx.training import TrainingDiverged as TrainingDiverged
from lstmx.training import evaluate as evaluate
from lstmx.training import train as train
from lstmx.unroll import record as record
from lstmx.unroll import run as run

__version__ = _version("lstmx")
