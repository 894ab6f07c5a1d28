"""Matplotlib figures of histories and results; they draw fields and compute no research quantity."""

from lstmx.plot.comparison import comparison as comparison
from lstmx.plot.dynamics import dynamics as dynamics
from lstmx.plot.effect import effect as effect
from lstmx.plot.flow import compare_flows as compare_flows
from lstmx.plot.flow import gates_ledger as gates_ledger
from lstmx.plot.flow import gradient_flow as gradient_flow
from lstmx.plot.influence import influence as influence
from lstmx.plot.layers import depth as depth
from lstmx.plot.layers import variants as variants
from lstmx.plot.memory import memory as memory
from lstmx.plot.paths import path_spectrum as path_spectrum
from lstmx.plot.points import eigenvalues as eigenvalues
from lstmx.plot.points import phase_portrait as phase_portrait
from lstmx.plot.spectrum import local_exponents as local_exponents
from lstmx.plot.spectrum import spectrum as spectrum
from lstmx.plot.statistics import saturation as saturation
from lstmx.plot.statistics import timescales as timescales
