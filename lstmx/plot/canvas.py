"""What the figures share: the sheet they are drawn on, colours, and how long or wide data is thinned out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from lstmx.checks import some_sequence
from lstmx.plot.fitting import fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

Sheet = TypeVar("Sheet", bound="Axes | Figure | SubFigure")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")  # Okabe & Ito
MARKERS = "os^Dv*PX"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
LIMIT = 1000  # most points of a line, and most rows and columns of a heat map
SHORT = 32  # up to as many points of a line get a marker each
_CROWDED = 300  # steps beyond which lines that cross hide each other
_LONGEST = 12  # letters of a token that are shown
_ENDS = (np.fmin.reduce, np.fmax.reduce)


class Look(NamedTuple):
    """What a caller asks of panels over time.

    Attributes:
        tokens: what stands at each step in place of its number, as `tokens_for` gives it; None for the numbers.
        cmap: the colour map of heat maps; None for their own.
        units: indices of the units drawn, as `units_for` gives them; None for all.
    """

    tokens: Sequence[str] | None = None
    cmap: str | Colormap | None = None
    units: np.ndarray | None = None


_PLAIN = Look()


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of the given size in inches, known to no pyplot."""
    from lstmx.plot.display import ShownFigure

    return ShownFigure(figsize=size, layout="constrained")


def figure_for(figure: Any, size: tuple[float, float]) -> Figure | SubFigure:
    """The caller's empty figure, or a new one of `size` inches where it is None.

    Raises:
        TypeError: not a Figure or SubFigure.
        ValueError: it already holds axes.
    """
    from matplotlib.figure import Figure, SubFigure

    if figure is None:
        return new_figure(size)
    if not isinstance(figure, (Figure, SubFigure)):
        raise TypeError(f"figure is a {type(figure).__name__}; expected a matplotlib Figure, SubFigure or None")
    held = len(figure.get_axes())
    if held:
        raise ValueError(f"figure already holds {held} axes; expected an empty Figure or SubFigure")
    return figure


def axes_for(ax: Any, size: tuple[float, float]) -> Axes:
    """The caller's axes, or those of a new figure of `size` inches where they are None.

    Raises:
        TypeError: not Axes.
    """
    from matplotlib.axes import Axes

    if ax is None:
        from lstmx.plot.display import ShownAxes

        return new_figure(size).add_subplot(axes_class=ShownAxes)
    if not isinstance(ax, Axes):
        raise TypeError(f"ax is a {type(ax).__name__}; expected matplotlib Axes or None")
    return ax


def finish(sheet: Sheet, own: str, title: str | None) -> Sheet:
    """Give a drawn figure, or axes, their title, and let all texts fit.

    Args:
        sheet: what was drawn on.
        own: what the figure is called by itself.
        title: what the caller calls it; None for `own`, "" for no title.

    Raises:
        TypeError: title is no text.
    """
    from matplotlib.axes import Axes

    if title is not None and not isinstance(title, str):
        raise TypeError(f"title is a {type(title).__name__}; expected a str, or None for the title of the figure")
    text = own if title is None else title
    if isinstance(sheet, Axes):
        sheet.set_title(text, loc="left")
    elif text:
        sheet.suptitle(text)
    fit(sheet)
    return sheet


def columns(figure: Figure | SubFigure, most: int, letters: float) -> int:
    """How many panels, each of at least so many heights of a letter, stand beside each other: from 1 to `most`."""
    from matplotlib import rcParams

    inches = figure.bbox.width / figure.dpi
    return int(np.clip(inches * 72 / (letters * rcParams["font.size"]), 1, most))


def pair(figure: Figure | SubFigure, ratios: tuple[float, float]) -> list[Axes]:
    """Two panels, beside each other with widths in these ratios, or above each other in a narrow figure."""
    if columns(figure, 2, 22) == 2:
        return list(figure.subplots(1, 2, width_ratios=ratios))
    return list(figure.subplots(2, 1))


def tokens_for(labels: Any, length: int, name: str) -> list[str] | None:
    """The caller's labels of `length` steps as they are shown: in one line, and cut where they are long.

    Raises:
        TypeError: not a sequence of texts.
        ValueError: not one for each step.
    """
    if labels is None:
        return None
    if not isinstance(labels, (Sequence, np.ndarray)) or not all(isinstance(label, str) for label in labels):
        raise TypeError(
            f"labels is a {type(labels).__name__}; expected a sequence of one str for each step, or None"
        )
    if len(labels) != length:
        raise ValueError(
            f"labels has {len(labels)} texts; expected one for each of the {length} steps of the {name}"
        )
    lines = [label.replace("\n", "↵") if label != " " else "␣" for label in labels]
    cut = [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in lines]
    return [line.replace("$", r"\$") for line in cut]


def units_for(units: Any, number: int, name: str) -> np.ndarray | None:
    """The caller's units as an array of indices from 0; None for None.

    Raises:
        TypeError: not integers.
        ValueError: no unit at all.
        IndexError: one that is not among `number` units.
    """
    if units is None:
        return None
    picked = np.asarray(units)
    if picked.ndim != 1 or not picked.size:
        raise ValueError(f"units has shape {picked.shape}; expected a sequence of at least one index, or None")
    if picked.dtype.kind not in "iu":
        raise TypeError(f"units holds {picked.dtype}; expected integers")
    outside = picked[(picked < -number) | (picked >= number)]
    if outside.size:
        raise IndexError(f"units has {outside[0]}; the {name} has {number} units")
    return picked % number


def colour_map(cmap: Any) -> None:
    """Raise a ValueError unless matplotlib has this colour map; None is one."""
    from matplotlib import colormaps
    from matplotlib.colors import Colormap

    if not (cmap is None or isinstance(cmap, Colormap) or (isinstance(cmap, str) and cmap in colormaps)):
        raise ValueError(f"cmap is {cmap!r}; expected the name of a colour map of matplotlib, or a Colormap")


def sequence_index(sequence: Any, batch: tuple[int, ...], name: str, every: bool = False) -> tuple[int, ...]:
    """The index into the batch axes of `name` that picks one sequence; () where there are none.

    With `every`, () for "all", too, which leaves the axes as they are.

    Raises:
        TypeError: not integers.
        ValueError: not one integer per batch axis; without batch axes, not 0; or no sequence in the batch.
        IndexError: outside the batch.
    """
    some_sequence(f"the {name}", batch)
    if every and isinstance(sequence, str) and sequence == "all":
        if not batch:
            raise ValueError(f"sequence is 'all'; the {name} has no batch axes: expected 0")
        return ()
    index: tuple[Any, ...] = sequence if isinstance(sequence, tuple) else (sequence,)
    if not batch and len(index) == 1 and isinstance(index[0], (int, np.integer)) and index[0] == 0:
        return ()
    if len(index) != len(batch):
        expected = "one integer for each" if batch else "0"
        raise ValueError(f"sequence is {sequence}; the {name} has batch axes {batch}: expected {expected}")
    for position, size in zip(index, batch, strict=True):
        if isinstance(position, bool) or not isinstance(position, (int, np.integer)):
            raise TypeError(f"sequence index {position!r} is not an integer")
        if not -size <= position < size:
            raise IndexError(f"sequence index {index} is outside the batch axes {batch}")
    return index


# --------------------------------------------------------------------------------------------- thinning


def block_size(length: int, limit: int = LIMIT) -> int:
    """The least number of neighbours to join so that at most `limit` blocks remain."""
    return -(-length // limit)


def block_means(values: np.ndarray, size: int, counts: np.ndarray | None = None) -> np.ndarray:
    """Means over blocks of `size` along axis 0; the last block may be shorter.

    Rows where `counts`, booleans, is false are left out; a block of such rows alone is NaN.
    """
    if counts is not None:
        values = blank_rows(values, counts, 0.0 if size > 1 else np.nan)
    if size == 1:
        return values
    starts = np.arange(0, len(values), size)
    number = np.add.reduceat(np.ones(len(values)) if counts is None else counts.astype(float), starts)
    number = np.where(number > 0, number, np.nan).reshape(-1, *[1] * (values.ndim - 1))
    return np.add.reduceat(values, starts, axis=0) / number


def blank_rows(values: np.ndarray, counts: np.ndarray | None, otherwise: float = np.nan) -> np.ndarray:
    """Values [T, ...] with another number where `counts` [T] is false; as they are for None."""
    if counts is None:
        return values
    return np.where(counts.reshape(-1, *[1] * (values.ndim - 1)), values, otherwise)


def block_centres(length: int, size: int) -> np.ndarray:
    """The middle of each block of `size` out of `length` positions 0, 1, ..."""
    return block_means(np.arange(length), size)


# ---------------------------------------------------------------------------------------------- drawing


def styles() -> Iterator[tuple[str, str]]:
    """Colours and markers without end, no pair of them twice among the first 56."""
    return zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)


def marker_for(points: np.ndarray) -> str:
    """A dot on each point of a short line, so that a single step is seen; none on a long one."""
    return "." if len(points) <= SHORT else ""


def line(ax: Axes, at: np.ndarray, values: np.ndarray, **look: Any) -> None:
    """Draw a line of which every point is seen: what stands alone between gaps, or is short, has dots."""
    (drawn,) = ax.plot(at, values, marker=marker_for(at), **{"linewidth": 1, **look})
    gone = np.concatenate([[True], np.isnan(values), [True]])
    alone = ~gone[1:-1] & gone[:-2] & gone[2:]
    if alone.any() and not marker_for(at):
        drawn.set(marker=".", markevery=np.flatnonzero(alone).tolist())


def lines(
    ax: Axes,
    values: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[str] = COLOURS,
    counts: np.ndarray | None = None,
    tokens: Sequence[str] | None = None,
    band: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Draw the columns of `values` [T, n] against the step, with a legend where there are several.

    A long line is drawn as block means within the blocks' range, so that a spike of one step stays visible. Steps
    where `counts` [T] is false leave a gap, and what stands alone between gaps has a dot. With `band`, two arrays
    [T, n], what lies between their block means is shaded in place of the range.
    """
    size = block_size(len(values))
    starts = np.arange(0, len(values), size)
    at, means = block_centres(len(values), size), block_means(values, size, counts)
    if band is None:
        least, most = (blank_rows(values, counts, end) for end in (np.inf, -np.inf))
        low, high = np.minimum.reduceat(least, starts, axis=0), np.maximum.reduceat(most, starts, axis=0)
    else:
        low, high = (block_means(edge, size, counts) for edge in band)
    for k, (label, colour) in enumerate(zip(labels, itertools.cycle(colours), strict=False)):
        line(ax, at, means[:, k], color=colour, label=label)
        if size > 1 or band is not None:
            drawn = ~np.isnan(means[:, k])
            ax.fill_between(at, low[:, k], high[:, k], where=drawn, color=colour, alpha=0.3, linewidth=0.8)
    index_axis(ax.xaxis, "step", len(values), size, "mean and range" if band is None else "means", tokens)
    if len(labels) > 1:
        legend_above(ax)


def traces(
    ax: Axes, values: np.ndarray, labels: Sequence[str], row: str, counts: np.ndarray | None, look: Look
) -> None:
    """Draw the columns of `values` [T, n] over each other, or where many steps would hide one of them, apart.

    Apart, each has a lane of its own, all of one height, and the axis says which.
    """
    if values.shape[1] == 1 or len(values) <= _CROWDED:
        lines(ax, values, labels, counts=counts, tokens=look.tokens)
        ax.set_ylabel("value")
        return
    shown = values if counts is None else values[counts]
    low, high = (np.nan_to_num(end(np.where(np.isfinite(shown), shown, np.nan), axis=0)) for end in _ENDS)
    height = float((high - low).max()) or 1.0
    lanes = (values - (low + high) / 2) / height + np.arange(len(labels))
    for k, colour in zip(range(len(labels)), itertools.cycle(COLOURS), strict=False):  # one by one have no legend
        lines(ax, lanes[:, k : k + 1], labels[k : k + 1], [colour], counts, look.tokens)
    index_axis(ax.yaxis, f"{row} (lane: {height:.2g})", len(labels), tokens=labels)


def heat_map(
    ax: Axes,
    values: np.ndarray,
    row: str,
    label: str | None,
    limits: tuple[float, float] | None = None,
    counts: np.ndarray | None = None,
    look: Look = _PLAIN,
) -> None:
    """Draw `values` [T, n] as an image, step to the right and `row` upwards, with a labelled colour bar if any.

    The colours span `limits`; None for 0, or the negative of the greatest magnitude drawn, up to the latter. Steps
    where `counts` [T] is false are left blank, in front of hatching.
    """
    names = None
    if look.units is not None and row == "unit":
        values, names = values[:, look.units], [str(unit) for unit in look.units]
    sizes = [block_size(length) for length in values.shape]
    image = block_means(block_means(values, sizes[0], counts).T, sizes[1])
    if limits is None:
        finite = image[np.isfinite(image)]
        most = float(np.abs(finite).max(initial=0)) or 1.0
        limits = (-most if (finite < 0).any() else 0.0, most)
    # The last block may reach over the end: the limits of the axes cut its cell to what is there.
    right, top = (count * size - 0.5 for count, size in zip(image.shape[::-1], sizes, strict=True))
    # Repeated cells keep their edges sharp: imshow blurs an image that is enlarged by a little.
    image = image.repeat(LIMIT // image.shape[0], axis=0).repeat(LIMIT // image.shape[1], axis=1)
    shown = ax.imshow(
        image,
        cmap=(DIVERGING if limits[0] < 0 else SEQUENTIAL) if look.cmap is None else look.cmap,
        vmin=limits[0],
        vmax=limits[1],
        origin="lower",
        aspect="auto",
        extent=(-0.5, right, -0.5, top),
    )
    if counts is not None:
        hatch(ax)
    index_axis(ax.xaxis, "step", len(values), sizes[0], "means", look.tokens)
    index_axis(ax.yaxis, row, values.shape[1], sizes[1], "means", names)
    if label is not None:
        ax.figure.colorbar(shown, ax=ax, label=label, fraction=0.06, pad=0.02)


def hatch(ax: Axes) -> None:
    """Hatching behind a heat map, seen where it is blank: white is a colour of maps of signed numbers."""
    ax.patch.set(hatch="///////", edgecolor="0.6", linewidth=0)


def index_axis(
    axis: Any, name: str, length: int, size: int = 1, joined: str = "", tokens: Sequence[str] | None = None
) -> None:
    """Label an axis of positions 0 to length − 1, saying where `size` neighbours are drawn as one.

    With tokens, as many of them as have room stand in place of the numbers.
    """
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    axis.set_label_text(name if size == 1 else f"{name} ({joined} of {size:,})")
    if tokens is None:
        axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(EngFormatter(sep=""))
    else:
        from matplotlib.axis import XAxis

        from lstmx.plot.display import TokenLocator

        axis.set_major_locator(TokenLocator(length))
        words = list(tokens)
        axis.set_major_formatter(FuncFormatter(lambda at, _: words[round(at)] if 0 <= at < length else ""))
        if isinstance(axis, XAxis) and max(map(len, tokens)) > 1:
            axis.set_tick_params(rotation=90)
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.5, length - 0.5)})


def log_axis(axis: Any, low: float, high: float) -> None:
    """A logarithmic axis of plain numbers, at 1, 2 and 5 of each decade where they have room."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    thousands = EngFormatter(sep="")
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    few = 3 * np.log10(high / low) < axis.get_tick_space()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda x, at: thousands(x) if x >= 1000 else f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def start_at_zero(ax: Axes) -> None:
    """Let the ordinate start at 0, with the usual margin above what is drawn."""
    ax.update_datalim([(0, 0)], updatex=False)
    ax.autoscale_view(scalex=False)
    ax.set_ylim(bottom=0)


def ink(ax: Axes) -> Any:
    """The colour of what has none of its own, dark on white and light on black."""
    return ax.xaxis.label.get_color()


def legend_above(ax: Axes) -> None:
    """A legend of all that has a label; `finish` puts it above the axes, where it covers no data."""
    ax.legend(loc="lower left")
