"""What wrote the folders `padded` and `zoneout` beside it: lstmx as of commit e04369a, whose format is version 1.

Run there, from the root of a checkout of that commit, with `PYTHONPATH=. python version_1.py FOLDER`. Today the
passes are made again, of the same numbers, in tests/test_disk.py.
"""

import sys
from pathlib import Path

import numpy as np

import lstmx


def passes():
    """Cell, parameters, inputs and options of each pass, by name."""
    draws = np.random.default_rng(0)
    gru, zoneout = lstmx.GRU(2, 2), lstmx.Zoneout(lstmx.LSTM(2, 2), hidden=0.4)
    resets = np.zeros((6, 2), bool)
    resets[2, 0] = resets[5, 1] = True
    lengths = np.array([6, 4])
    xs = draws.normal(size=(6, 2, 2))
    return {
        "padded": (gru, gru.init(np.random.default_rng(1), "float64"), xs, {"lengths": lengths, "resets": resets}),
        "zoneout": (
            zoneout,
            zoneout.init(np.random.default_rng(2), "float64"),
            xs,
            {"lengths": lengths, "key": np.random.default_rng(3)},
        ),
    }


if __name__ == "__main__":
    for name, (cell, params, xs, options) in passes().items():
        lstmx.record(cell, params, xs, **options).save(Path(sys.argv[1]) / name)
