"""`Observatory`: looks at a network while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import Array, dtype_of, fetched, map_tree, namespace, require
from lstmx.checks import array, cells_of, finite, one_direction, parameters, positive, same_dtype, shaped
from lstmx.checks import path as checked_path
from lstmx.gradients.flow import known_loss
from lstmx.history.schema import told
from lstmx.layers.structures import KINDS
from lstmx.observatory.alarms import Alarm, alarms_of
from lstmx.observatory.disk import Shelf
from lstmx.observatory.looking import GIVEN, READINGS, axes_of, by_part, jump, look, norms, parts_of
from lstmx.observatory.tensorboard import scalars, writer_to

_SHARE = 0.01  # of the time that goes into keeping looks on disk


class Observatory:
    """Looks at a network every so many training steps, and says what went wrong and when.

    A look is a pass over a fixed probe and its analyses, compiled once:

        observatory = lstmx.Observatory(cell, probe, every=50, lag=40)
        training = lstmx.train(model, model.init(0), task.batch, observe=observatory)
        print(observatory)

    and in a loop of one's own `observatory(step, params)` after each step. Nothing of the training is changed by
    it. `observatory["horizon"]` and the like are the readings, with an axis of looks in front:

    - of the pass: `decay_rate`, `horizon` and `mean_order` [looks, sequences], as `gradient_flow` and
      `path_spectrum` give them; `log_norm` [looks, T], ln of the gradient's norm by its lag, against that at the
      loss, median over sequences; `exponents` [looks, 4]; `finite` [looks];
    - of each layer: `share` [looks, layers, ways], the mean share of each way back of the gradient; of each gate,
      [looks, layers, gates], `gate_mean`, saturation `left` and `right`, and the share of units in which it stays
      `shut` (below 0.001) or `open` (above 0.999); its `distribution` [looks, layers, gates, 20]; the `timescale`
      [looks, layers, 3] of the retention gate at the 10 %, 50 % and 90 % quantile of the units;
    - norms of each layer, [looks, layers]: `weight_norm`, and `gradient_norm` and `update_norm` where they were
      handed in, as `train` does; `jump` [looks], ln of how many times as large the outputs on the probe are where
      the last update is made once more or taken back, the greater of both; the `training_loss`; and
      `given_finite` [looks, 3], whether the loss, the gradient and the update that were handed in were finite.

    What a cell does not have is NaN: a mean order without a cell state, ways and shares of a step function.

    Alarms, each with the step of the first look at which it was true: "not finite", of parameters and states or of
    what was handed in; "exploding", a gradient that is over 1000 times as large at some step back as at the loss;
    "vanishing", below 10⁻⁷ ten steps back; "crossing", the leading exponent above ln 100 / T after it was not;
    "unstable", an update that made once more or taken back makes the outputs over twice as large; "shut", a gate
    that is dead in over half of the units, and "open", one that is stuck, but for the retention gate; "lag", at
    most 0.1 % of the gradient at the lag that was asked for, after there was over 1 %. benchmarks/observatory.md
    has what they are worth.

    Args:
        cell: the cell, or a `Stack`.
        probe: inputs of each look, [T, *batch, D], in the library and dtype of the parameters. A few sequences do:
            the cost of a look grows with T and the batch.
        every: steps between two looks.
        loss: of the gradient, as for `gradient_flow`: "last", an array or a function of the outputs.
        lag: steps that the task needs the gradient to reach back; None to ask for none.
        convert: what makes (cell, parameters) of what a loop hands in, such as `lstmx.convert.from_torch` for a
            module of PyTorch; None where it hands in the cell's parameters.
        path: a folder to keep the looks in, as Zarr, which `xarray.open_zarr(path, consolidated=False)` reads: a
            new or empty one, or that of the same observatory, whose looks are there then. Each training takes a
            path of its own. A loss that is a function is kept as no more than that: another one goes on with the
            same looks, and nothing tells. The folder is written to as often as takes 1 % of the time, and by
            `flush`, which `train` calls in the end. Where the process is killed, looks since it was last written
            to are lost: call `flush()` beside each checkpoint. None to keep them in memory.
        tensorboard: a folder for events of TensorBoard: every reading that is one number, and alarms as texts.
            None for none.

    Raises:
        TypeError: an argument of the wrong kind, or a layer that reads in both directions of time.
        ValueError: a wrong shape or word, a number out of range, NaN or infinity in the probe or the loss, or a
            folder of another observatory.
        FileExistsError: there is something else at `path`.
        BlockingIOError: another process, or another thread, is writing there.
        ImportError: zarr is not installed and a path is given, or nothing that writes for TensorBoard.
    """

    def __init__(
        self,
        cell: Any,
        probe: Array,
        every: int = 50,
        *,
        loss: Any = "last",
        lag: int | None = None,
        convert: Callable[[Any], tuple[Any, Any]] | None = None,
        path: str | Path | None = None,
        tensorboard: str | Path | None = None,
    ):
        cells_of("cell", cell)
        one_direction(cell)
        array("probe", probe)
        if probe.ndim < 2 or probe.shape[-1] != cell.input_size or 0 in probe.shape:
            raise ValueError(
                f"probe has shape {tuple(probe.shape)}; expected [T, *batch, {cell.input_size}] with at least one "
                "step and one sequence"
            )
        finite("probe", probe, "feature")
        known_loss(loss)
        if not callable(loss) and not isinstance(loss, str):
            shape = (*probe.shape[:-1], cell.output_size)
            finite("loss", shaped("loss", loss, shape, probe.dtype, "dL/dh_t [T, *batch, hidden_size]"))
        if convert is not None and not callable(convert):
            raise TypeError(
                f"convert is a {type(convert).__name__}; expected a function such as convert.from_torch"
            )
        if lag is not None:
            _lag_within(lag, probe)
        self.cell, self.probe, self.every = cell, probe, positive("every", every)
        self.loss, self.lag, self.convert = loss, lag, convert
        self._axes = axes_of(cell, probe)
        self._steps: list[int] = []
        self._rows: list[dict[str, np.ndarray]] = []
        self._writer = None if tensorboard is None else writer_to(checked_path("tensorboard", tensorboard))
        self._shelf, self._kept, self._next = None, 0, 0.0
        if path is not None:
            place = checked_path("path", path)
            self._shelf = Shelf(place, cell, fetched(probe), loss, self.every, self._axes)
            self._steps, self._rows = self._shelf.read()
            self._kept = len(self)

    def due(self, step: int) -> bool:
        """Whether there is a look after this many steps.

        Raises:
            TypeError: the step is no integer.
            ValueError: it is negative.
        """
        return positive("step", step, 0) % self.every == 0

    def __call__(
        self,
        step: int,
        params: Any,
        *,
        gradient: Any = None,
        update: Any = None,
        training_loss: float | None = None,
    ) -> tuple[Alarm, ...]:
        """Look, where a look is due.

        Args:
            step: steps done so far. Where looks at this step or later ones are there, as after a training went
                back to a checkpoint, they are forgotten.
            params: the cell's parameters; with `convert`, what that takes.
            gradient: the training's gradient of these, in their form; None without.
            update: what the last step added to them, in their form; None without.
            training_loss: the loss of the last step; None without.

        Returns:
            Alarms that are true for the first time.

        Raises:
            TypeError: an argument of another kind, such as a loss that is no real number, parameters in another
                dtype than the probe, or a converter that gives no pair.
            ValueError: a number out of range, parameters of another shape, a converter that gives another cell,
                or a gradient or an update beside a converter; and as `flush`, which this calls at times.
        """
        if not self.due(step):
            return ()
        params = self._converted(params, gradient, update)
        parameters(self.cell, params)
        same_dtype("probe", self.probe, dtype_of(params), "the parameters are")
        row = look(self.cell, params, self.probe, self.loss, self._axes)
        for name, given in (("gradient", gradient), ("update", update)):
            if given is not None:
                parameters(self.cell, given, name)
                row[f"{name}_norm"] = norms(by_part(self.cell, given))
        if update is not None:
            row["jump"] = jump(self.cell, params, update, self.probe)
        if training_loss is not None:
            row["training_loss"] = _real("training_loss", training_loss)
        for k, (name, came) in enumerate(zip(GIVEN, (training_loss, gradient, update), strict=True)):
            if came is not None:
                row["given_finite"][k] = np.isfinite(row[name]).all()
        self._forget(step)
        self._steps.append(step)
        self._rows.append(row)
        if time.monotonic() >= self._next:
            self.flush()
        alarms = tuple(alarm for alarm in self.alarms if alarm.step == step)
        if self._writer is not None:
            for tag, value in scalars(row, self._axes):
                self._writer.add_scalar(tag, value, step)
            for alarm in alarms:
                self._writer.add_text("alarm", str(alarm), step)
            self._writer.flush()
        return alarms

    def _converted(self, params: Any, gradient: Any, update: Any) -> Any:
        """The cell's parameters in the probe's library, from what a loop handed in."""
        if self.convert is None:
            return params
        if gradient is not None or update is not None:
            raise ValueError(
                "gradient or update is given beside convert=, which makes parameters of what came, such as sums "
                "of biases, and is no map of gradients; expected None"
            )
        made = self.convert(params)
        if not isinstance(made, tuple) or len(made) != 2:
            raise TypeError(
                f"convert gives a {type(made).__name__}; expected a pair (cell, parameters), as convert.from_torch"
            )
        cell, params = made
        cells_of("what convert gives first", cell)
        if cell != self.cell:
            raise ValueError(f"convert gives {cell}; this observatory is of {self.cell}")
        return map_tree(namespace(self.probe).asarray, params)

    def _forget(self, step: int) -> None:
        """Forget looks at `step` and later ones."""
        kept = int(np.searchsorted(self._steps, step))
        del self._steps[kept:], self._rows[kept:]
        self._kept = min(self._kept, kept)

    def flush(self) -> None:
        """Write to `path`, where there is one, the looks that are not there yet.

        Raises:
            FileNotFoundError: the folder at `path` is gone.
            ValueError: it is damaged, or another observatory has written to it since this one last did.
        """
        if self._shelf is None or self._kept == len(self):
            return
        start = time.monotonic()
        self._shelf.write(self._steps[self._kept :], self._rows[self._kept :], self._kept)
        self._kept, end = len(self), time.monotonic()
        self._next = end + (end - start) / _SHARE

    @property
    def steps(self) -> np.ndarray:
        """The step of each look, [looks]."""
        return np.array(self._steps, np.int64)

    def __len__(self) -> int:
        """The number of looks."""
        return len(self._steps)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in READINGS:
            raise KeyError(f"no reading {name!r}; those are {', '.join(READINGS)}")
        lengths = [len(getattr(self._axes, axis)) for axis in READINGS[name][0]]
        return np.array([row[name] for row in self._rows]).reshape(len(self), *lengths)

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The names along each axis of the readings: sequences, lags, layers, ways, gates and so on."""
        return {name: list(along) for name, along in self._axes._asdict().items()}

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All alarms, in the order of the steps at which they were first true."""
        kept = {name: part.retention_gate for name, part in parts_of(self.cell).items()}
        return tuple(alarms_of(self.steps, self, self._axes, kept, self.lag)) if len(self) else ()

    def reached(self, lag: int) -> float:
        """The step of the first look at which the gradient's horizon, the median over sequences, is over `lag`.

        Infinite where it never is.

        Raises:
            TypeError: the lag is no integer.
            ValueError: it is below 1, or no less than the steps of the probe.
        """
        true = np.median(self["horizon"], axis=1) > _lag_within(lag, self.probe)
        return float(self.steps[true.argmax()]) if true.any() else np.inf

    def to_xarray(self) -> Any:
        """The looks as an `xarray.Dataset` over the training steps.

        Raises:
            ImportError: xarray is not installed.
        """
        xarray = require("xarray", "to_xarray")
        variables = {
            name: (("step", *own), self[name], {"long_name": long_name, "units": "1"})
            for name, (own, long_name) in READINGS.items()
        }
        attributes = {"cell": told(self.cell, KINDS), "every": self.every}
        return xarray.Dataset(variables, {"step": self.steps, **self.axes}, attributes)

    def __repr__(self) -> str:
        looks, alarms = len(self), len(self.alarms)
        return f"Observatory({self.cell}: {looks} look{'s' * (looks != 1)}, {alarms} alarm{'s' * (alarms != 1)})"

    def __str__(self) -> str:
        """The first and the last look, and the alarms."""
        if not len(self):
            return repr(self)
        often = "every step" if self.every == 1 else f"every {self.every} steps"
        lines = [f"{len(self)} look{'s' * (len(self) != 1)} at {self.cell}, {often}, up to step {self._steps[-1]}"]
        horizon = "below 1 % of the gradient, steps back"
        head = {
            horizon: np.median(self["horizon"], axis=1),
            "decay, nats per step": np.median(self["decay_rate"], axis=1),
            "mean order": np.median(self["mean_order"], axis=1),
            "leading exponent": self["exponents"][:, 0],
            "training loss": self["training_loss"],
        }
        for name, values in head.items():
            known = values[~np.isnan(values)]
            if len(known):
                beyond = "beyond the probe" if name == horizon else "inf"
                first, last = (beyond if value == np.inf else f"{value:.4g}" for value in known[[0, -1]])
                lines.append(f"  {name}: {first} at first, {last} at last")
        alarms = [f"  {alarm}" for alarm in self.alarms]
        return "\n".join([*lines, *(["alarms:", *alarms] if alarms else ["no alarms"])])


def _lag_within(lag: Any, probe: Array) -> int:
    """A lag as an int.

    Raises:
        TypeError: not an integer.
        ValueError: below 1, or beyond the probe.
    """
    if (number := positive("lag", lag)) >= len(probe):
        raise ValueError(f"lag is {number}; expected less than the {len(probe)} steps of the probe")
    return number


def _real(name: str, value: Any) -> np.ndarray:
    """A real number, or an array of one and no axis, as float64.

    Raises:
        TypeError: it is something else.
        ValueError: it is an array with axes.
    """
    number = fetched(value)
    if number.dtype.kind not in "iufV":  # V of bfloat16
        raise TypeError(f"{name} is {value!r}; expected a real number")
    if number.ndim:
        raise ValueError(f"{name} has shape {number.shape}; expected a real number")
    return number.astype(np.float64)
