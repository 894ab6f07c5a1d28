"""Cells in layers and in both directions of time: structures, and the histories that they leave."""

from lstmx.layers.base import Directions as Directions
from lstmx.layers.base import Layers as Layers
from lstmx.layers.base import Passing as Passing
from lstmx.layers.base import Timing as Timing
from lstmx.layers.base import flipped as flipped
from lstmx.layers.disk import StoredLayers as StoredLayers
from lstmx.layers.disk import load_history as load_history
from lstmx.layers.histories import BidirectionalHistory as BidirectionalHistory
from lstmx.layers.histories import LayeredHistory as LayeredHistory
from lstmx.layers.histories import LayeredPass as LayeredPass
from lstmx.layers.histories import StackHistory as StackHistory
from lstmx.layers.histories import history_passing as history_passing
from lstmx.layers.histories import outputs_passing as outputs_passing
from lstmx.layers.structures import KINDS as KINDS
from lstmx.layers.structures import Bidirectional as Bidirectional
from lstmx.layers.structures import Stack as Stack
from lstmx.layers.structures import layered_door as layered_door
