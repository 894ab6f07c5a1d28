"""Matplotlib figures of histories and results; they draw fields and compute no research quantity."""

from lstmx.contents import publish
from lstmx.plot.attribution import attribution
from lstmx.plot.bifurcation import bifurcation
from lstmx.plot.comparison import comparison, reach
from lstmx.plot.covariant import covariant
from lstmx.plot.dynamics import dynamics
from lstmx.plot.effect import effect
from lstmx.plot.flow import compare_flows, gates_ledger, gradient_flow
from lstmx.plot.influence import influence
from lstmx.plot.layers import depth, variants
from lstmx.plot.memory import memory
from lstmx.plot.observatory import animation, observatory
from lstmx.plot.paths import path_spectrum
from lstmx.plot.points import eigenvalues, phase_portrait
from lstmx.plot.spectrum import local_exponents, spectrum
from lstmx.plot.statistics import saturation, timescales

__all__ = [
    "animation",
    "attribution",
    "bifurcation",
    "compare_flows",
    "comparison",
    "covariant",
    "depth",
    "dynamics",
    "effect",
    "eigenvalues",
    "gates_ledger",
    "gradient_flow",
    "influence",
    "local_exponents",
    "memory",
    "observatory",
    "path_spectrum",
    "phase_portrait",
    "reach",
    "saturation",
    "spectrum",
    "timescales",
    "variants",
]

publish(__name__)
