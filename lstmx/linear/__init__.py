"""A pass as linear maps, one for each step, and the walks along them: what every analysis is written on."""

from lstmx.linear.check import check_cell as check_cell
from lstmx.linear.steps import CellSteps as CellSteps
from lstmx.linear.steps import ControlledSteps as ControlledSteps
from lstmx.linear.steps import FunctionSteps as FunctionSteps
from lstmx.linear.steps import LinearSteps as LinearSteps
from lstmx.linear.steps import MatrixSteps as MatrixSteps
from lstmx.linear.steps import PassSteps as PassSteps
from lstmx.linear.steps import StackSteps as StackSteps
from lstmx.linear.steps import linearise as linearise
from lstmx.linear.steps import state_size as state_size
from lstmx.linear.steps import steps_at as steps_at
from lstmx.linear.steps import steps_of as steps_of
from lstmx.linear.walks import back_through as back_through
from lstmx.linear.walks import backward_by_segments as backward_by_segments
from lstmx.linear.walks import batch_of as batch_of
from lstmx.linear.walks import push_through as push_through
from lstmx.linear.walks import walk_back as walk_back
from lstmx.linear.walks import walk_forward as walk_forward
from lstmx.linear.walks import without_unit_batch as without_unit_batch
