"""Several cells on one task, on equal terms."""

from lstmx.comparison.comparing import compare as compare
from lstmx.comparison.matching import matched as matched
from lstmx.comparison.results import Comparison as Comparison
from lstmx.comparison.results import Estimate as Estimate
from lstmx.comparison.results import estimate as estimate
