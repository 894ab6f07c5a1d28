"""What the figures share: the sheet they are drawn on, colours, and how long or wide data is thinned out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.checks import some_sequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
MARKERS = "os^Dv*PX"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
LIMIT = 1000  # most points of a line, and most rows and columns of a heat map
SHORT = 32  # up to as many points of a line get a marker each


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


def sequence_index(sequence: Any, batch: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The index into the batch axes of `name` that picks one sequence; () where there are none.

    Raises:
        TypeError: not integers.
        ValueError: not one integer per batch axis; without batch axes, not 0; or no sequence in the batch.
        IndexError: outside the batch.
    """
    some_sequence(f"the {name}", batch)
    index = sequence if isinstance(sequence, tuple) else (sequence,)
    if not batch and index == (0,):
        return ()
    if len(index) != len(batch):
        expected = "one integer for each" if batch else "0"
        raise ValueError(f"sequence is {sequence}; the {name} has batch axes {batch}: expected {expected}")
    for position, size in zip(index, batch, strict=True):
        if isinstance(position, bool) or not hasattr(position, "__index__"):
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


def lines(
    ax: Axes,
    values: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[str] = COLOURS,
    counts: np.ndarray | None = None,
) -> None:
    """Draw the columns of `values` [T, n] against the step, with a legend where there are several.

    A long line is drawn as block means within the blocks' range, so that a spike of one step stays visible. Steps
    where `counts` [T] is false leave a gap, and what stands alone between gaps has a dot.
    """
    size = block_size(len(values))
    starts = np.arange(0, len(values), size)
    at, means = block_centres(len(values), size), block_means(values, size, counts)
    least, most = (blank_rows(values, counts, end) for end in (np.inf, -np.inf))
    low, high = np.minimum.reduceat(least, starts, axis=0), np.maximum.reduceat(most, starts, axis=0)
    for k, (label, colour) in enumerate(zip(labels, itertools.cycle(colours), strict=False)):
        (line,) = ax.plot(at, means[:, k], color=colour, linewidth=1, marker=marker_for(at), label=label)
        gone = np.concatenate([[True], np.isnan(means[:, k]), [True]])
        alone = ~gone[1:-1] & gone[:-2] & gone[2:]
        if alone.any() and not marker_for(at):
            line.set(marker=".", markevery=np.flatnonzero(alone).tolist())
        if size > 1:
            drawn = ~gone[1:-1]
            ax.fill_between(at, low[:, k], high[:, k], where=drawn, color=colour, alpha=0.3, linewidth=0.8)
    index_axis(ax.xaxis, "step", len(values), size, "mean and range")
    if len(labels) > 1:
        legend_above(ax)


def heat_map(
    ax: Axes,
    values: np.ndarray,
    row: str,
    label: str | None,
    limits: tuple[float, float] | None = None,
    counts: np.ndarray | None = None,
) -> None:
    """Draw `values` [T, n] as an image, step to the right and `row` upwards, with a labelled colour bar if any.

    The colours span `limits`; None for 0, or the negative of the greatest magnitude drawn, up to the latter. Steps
    where `counts` [T] is false are left blank, in front of hatching.
    """
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
        cmap=DIVERGING if limits[0] < 0 else SEQUENTIAL,
        vmin=limits[0],
        vmax=limits[1],
        origin="lower",
        aspect="auto",
        extent=(-0.5, right, -0.5, top),
    )
    if counts is not None:
        hatch(ax)
    index_axis(ax.xaxis, "step", len(values), sizes[0], "means")
    index_axis(ax.yaxis, row, values.shape[1], sizes[1], "means")
    if label is not None:
        ax.figure.colorbar(shown, ax=ax, label=label, fraction=0.06, pad=0.02)


def hatch(ax: Axes) -> None:
    """Hatching behind a heat map, seen where it is blank: white is a colour of maps of signed numbers."""
    ax.patch.set(hatch="///////", edgecolor="0.6", linewidth=0)


def index_axis(axis: Any, name: str, length: int, size: int = 1, joined: str = "") -> None:
    """Label an axis of positions 0 to length − 1, saying where `size` neighbours are drawn as one."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_label_text(name if size == 1 else f"{name} ({joined} of {size:,})")
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.5, length - 0.5)})


def start_at_zero(ax: Axes) -> None:
    """Let the ordinate start at 0, with the usual margin above what is drawn."""
    ax.update_datalim([(0, 0)], updatex=False)
    ax.autoscale_view(scalex=False)
    ax.set_ylim(bottom=0)


def title(ax: Axes, text: str) -> None:
    """A title at the left, above the legend where `legend_above` made one."""
    size = float(ax.xaxis.label.get_fontsize())
    ax.set_title(text, loc="left", fontsize=size, pad=size * (1.8 if ax.get_legend() else 0.6))


def legend_above(ax: Axes) -> None:
    """The legend in one line above the axes, where it covers no data."""
    legend = ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(ax.get_legend_handles_labels()[0]),
        frameon=False,
        fontsize="small",
        handlelength=1,
        handletextpad=0.4,
        columnspacing=1,
        borderpad=0.3,
        borderaxespad=0,
    )
    legend.set_in_layout(False)  # the title above keeps its height free; its width must not narrow the axes
