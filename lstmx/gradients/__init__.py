"""Where gradients go: how fast, through which gate, in which units and from which steps they vanish."""

from lstmx.gradients.flow import GateShare as GateShare
from lstmx.gradients.flow import GradientFlow as GradientFlow
from lstmx.gradients.flow import gradient_flow as gradient_flow
from lstmx.gradients.highway import highway as highway
