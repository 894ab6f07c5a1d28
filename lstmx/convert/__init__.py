"""Weights from and to other frameworks: each function reads arrays by name and shape, and returns (cell, params).

Parameters are NumPy arrays, or JAX arrays where the source holds these. Time first or batch first is no matter of
weights: `lstmx.run` takes time first, whatever the framework did.
"""

from lstmx.contents import publish
from lstmx.convert.cudnn import from_cudnn, to_cudnn
from lstmx.convert.equinox import from_equinox, to_equinox
from lstmx.convert.flax import from_flax, record_flax, to_flax
from lstmx.convert.haiku import from_haiku, to_haiku
from lstmx.convert.keras import from_keras, record_keras, to_keras
from lstmx.convert.onnx import from_onnx, record_onnx, to_onnx
from lstmx.convert.tensorflow import from_tensorflow
from lstmx.convert.torch import from_torch, record_torch, to_torch

__all__ = [
    "from_cudnn",
    "from_equinox",
    "from_flax",
    "from_haiku",
    "from_keras",
    "from_onnx",
    "from_tensorflow",
    "from_torch",
    "record_flax",
    "record_keras",
    "record_onnx",
    "record_torch",
    "to_cudnn",
    "to_equinox",
    "to_flax",
    "to_haiku",
    "to_keras",
    "to_onnx",
    "to_torch",
]

publish(__name__)
