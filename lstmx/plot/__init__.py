"""Matplotlib figures of histories and results; they draw fields and compute no research quantity."""

from lstmx.plot.comparison import comparison as comparison
from lstmx.plot.dynamics import dynamics as dynamics
from lstmx.plot.statistics import saturation as saturation
from lstmx.plot.statistics import timescales as timescales
