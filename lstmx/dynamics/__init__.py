"""The network as a dynamical system: its Jacobians, its Lyapunov exponents, its fixed points."""

from lstmx.dynamics.fixed_points import fixed_points as fixed_points
from lstmx.dynamics.gain import critical_gain as critical_gain
from lstmx.dynamics.jacobians import Isometry as Isometry
from lstmx.dynamics.jacobians import input_jacobians as input_jacobians
from lstmx.dynamics.jacobians import isometry as isometry
from lstmx.dynamics.jacobians import jacobians as jacobians
from lstmx.dynamics.lyapunov import autonomous_spectrum as autonomous_spectrum
from lstmx.dynamics.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from lstmx.dynamics.parallel import Parallelisability as Parallelisability
from lstmx.dynamics.parallel import parallelisability as parallelisability
from lstmx.dynamics.points import FixedPoints as FixedPoints
from lstmx.dynamics.points import Points as Points
from lstmx.dynamics.product import LongJacobian as LongJacobian
from lstmx.dynamics.product import long_jacobian as long_jacobian
from lstmx.dynamics.spectrum import LyapunovSpectrum as LyapunovSpectrum
from lstmx.dynamics.spectrum import PublishedRecipes as PublishedRecipes
from lstmx.dynamics.spectrum import SumRule as SumRule
from lstmx.dynamics.spectrum import kaplan_yorke as kaplan_yorke
