"""What a target is made of: contributions of inputs, initial states and biases, and their test by new passes."""

from lstmx.attribution.attention import EffectiveAttention, effective_attention
from lstmx.attribution.attribute import attribute
from lstmx.attribution.faithfulness import Faithfulness, faithfulness
from lstmx.attribution.results import Attribution

__all__ = [
    "Attribution",
    "EffectiveAttention",
    "Faithfulness",
    "attribute",
    "effective_attention",
    "faithfulness",
]
