"""Weights from and to other frameworks: each function reads arrays by name and shape, and returns (cell, params).

Parameters are NumPy arrays, or JAX arrays where the source holds these. Time first or batch first is no matter of
weights: `lstmx.run` takes time first, whatever the framework did.
"""

from lstmx.convert.cudnn import from_cudnn as from_cudnn
from lstmx.convert.cudnn import to_cudnn as to_cudnn
from lstmx.convert.equinox import from_equinox as from_equinox
from lstmx.convert.equinox import to_equinox as to_equinox
from lstmx.convert.flax import from_flax as from_flax
from lstmx.convert.flax import to_flax as to_flax
from lstmx.convert.haiku import from_haiku as from_haiku
from lstmx.convert.haiku import to_haiku as to_haiku
from lstmx.convert.keras import from_keras as from_keras
from lstmx.convert.keras import to_keras as to_keras
from lstmx.convert.live import record_flax as record_flax
from lstmx.convert.live import record_keras as record_keras
from lstmx.convert.live import record_torch as record_torch
from lstmx.convert.onnx import from_onnx as from_onnx
from lstmx.convert.onnx import to_onnx as to_onnx
from lstmx.convert.torch import from_torch as from_torch
from lstmx.convert.torch import to_torch as to_torch
