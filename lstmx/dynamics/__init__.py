"""The network as a dynamical system: its Jacobians, its Lyapunov exponents, its fixed points."""

from lstmx.dynamics.continuation import Bifurcation as Bifurcation
from lstmx.dynamics.continuation import Branch as Branch
from lstmx.dynamics.continuation import Continuation as Continuation
from lstmx.dynamics.continuation import continue_fixed_points as continue_fixed_points
from lstmx.dynamics.covariant import covariant_vectors as covariant_vectors
from lstmx.dynamics.cycles import Cycles as Cycles
from lstmx.dynamics.cycles import cycles as cycles
from lstmx.dynamics.fixed_points import fixed_points as fixed_points
from lstmx.dynamics.gain import critical_gain as critical_gain
from lstmx.dynamics.jacobians import Isometry as Isometry
from lstmx.dynamics.jacobians import input_jacobians as input_jacobians
from lstmx.dynamics.jacobians import isometry as isometry
from lstmx.dynamics.jacobians import jacobians as jacobians
from lstmx.dynamics.lyapunov import autonomous_spectrum as autonomous_spectrum
from lstmx.dynamics.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from lstmx.dynamics.points import FixedPoints as FixedPoints
from lstmx.dynamics.points import Points as Points
from lstmx.dynamics.product import LongJacobian as LongJacobian
from lstmx.dynamics.product import long_jacobian as long_jacobian
from lstmx.dynamics.spectrum import LyapunovSpectrum as LyapunovSpectrum
from lstmx.dynamics.spectrum import PublishedRecipes as PublishedRecipes
from lstmx.dynamics.spectrum import SumRule as SumRule
from lstmx.dynamics.spectrum import kaplan_yorke as kaplan_yorke
from lstmx.dynamics.vectors import CovariantVectors as CovariantVectors
from lstmx.dynamics.vectors import Hyperbolicity as Hyperbolicity
from lstmx.dynamics.vectors import ReadExponents as ReadExponents
