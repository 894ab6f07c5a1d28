"""A figure of the peers' times over ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.sizes import Case

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")  # Okabe and Ito
ROWS = {"forward": "lstmx", "record": "lstmx.record", "gradient": "lstmx"}


def draw(results: list[dict[str, Any]], machine: str, path: Path) -> None:
    """Write grouped bars, one panel per row, one group per case and core setting, log axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {row: _groups(row, results) for row in ROWS}
    panels = {row: groups for row, groups in panels.items() if groups}
    if not panels:
        return
    widest = max(map(len, panels.values()))
    size = (max(7, 1.3 * widest + 3), 3.2 * len(panels) + 0.8)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False, layout="constrained")
    names = list(dict.fromkeys(n for groups in panels.values() for _, bars in groups for n in bars))
    colours = dict(zip(names, COLOURS * 2, strict=False))
    for ax, (row, groups) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(ax, groups, colours)
        ax.set_title(_TITLES[row], loc="left")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names]
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel(machine, fontsize=6, color="0.4")
    figure.savefig(path, dpi=150)
    plt.close(figure)


_TITLES = {
    "forward": "Forward",
    "record": "Peers' forward without a record, over our forward with a full record",
    "gradient": "Gradient of parameters and inputs",
}


def _groups(row: str, results: list[dict[str, Any]]) -> list[tuple[str, dict[str, float]]]:
    """(label, peer → time over ours)."""
    groups = []
    for result in results:
        if result["kind"] != "case" or row not in result.get("rows", ()):
            continue
        candidates = result["rows"][row]
        ours = next(c["median_us"] for c in candidates if c["name"] == ROWS[row])
        bars = {
            c["name"].removesuffix(", forward alone"): c["median_us"] / ours
            for c in candidates
            if c["kind"] in ("jax", "torch", "limit")
        }
        case = Case(*result["case"])
        cores = "1 core" if result["cores"] == 1 else f"{result['cores']} cores"
        if bars:
            groups.append((f"T={case.length:,}\nB={case.batch}, D={case.features}\nH={case.units}\n{cores}", bars))
    return groups


def _panel(ax: Any, groups: list[tuple[str, dict[str, float]]], colours: dict[str, str]) -> None:
    names = [name for name in colours if any(name in bars for _, bars in groups)]
    width = 0.85 / max(1, len(names))
    for k, name in enumerate(names):
        at = [g + (k - (len(names) - 1) / 2) * width for g, (_, bars) in enumerate(groups) if name in bars]
        ratios = [bars[name] for _, bars in groups if name in bars]
        ax.bar(at, [r - 1 for r in ratios], width * 0.92, bottom=1, color=colours[name])
    ax.set_yscale("log")
    lowest = min(min(bars.values()) for _, bars in groups)
    highest = max(max(bars.values()) for _, bars in groups)
    ax.set_ylim(min(0.4, lowest / 1.2), max(3, highest * 1.2))
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if ax.get_ylim()[0] <= t <= ax.get_ylim()[1]]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.axhline(1, color="black", linewidth=1)
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xticks(range(len(groups)), [label for label, _ in groups], fontsize=7)
    ax.set_ylabel("time over ours\n(above 1: slower than ours)", fontsize=8)
