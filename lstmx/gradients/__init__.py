"""Where gradients go: how fast, through which gate, in which units and from which steps they vanish."""

from lstmx.gradients.credit import Agreement as Agreement
from lstmx.gradients.credit import CreditError as CreditError
from lstmx.gradients.credit import credit_error as credit_error
from lstmx.gradients.flow import gradient_flow as gradient_flow
from lstmx.gradients.highway import highway as highway
from lstmx.gradients.influence import Influence as Influence
from lstmx.gradients.influence import gate_kernel as gate_kernel
from lstmx.gradients.influence import influence as influence
from lstmx.gradients.layered import LayeredFlow as LayeredFlow
from lstmx.gradients.online import OnlineGradients as OnlineGradients
from lstmx.gradients.online import online as online
from lstmx.gradients.paths import PathSpectrum as PathSpectrum
from lstmx.gradients.paths import path_spectrum as path_spectrum
from lstmx.gradients.walk import GateShare as GateShare
from lstmx.gradients.walk import GradientFlow as GradientFlow
