"""The results as markdown tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.goals import best
from benchmarks.sizes import Case

_OURS = {
    "forward": "lstmx",
    "record": "lstmx.record",
    "gradient": "lstmx",
    "flow": "lstmx.gradient_flow, norms",
}
_WHOLE = "forward", "gradient"


def page(about: dict[str, Any], results: list[dict[str, Any]], goals: list[dict[str, Any]]) -> str:
    """What README.md shows of a run: a line for each case, and which goals were missed."""
    measured = [result for result in results if "error" not in result]
    rows = [
        (f"{Case(*r['case']).title}, {r['cores']}", *_ratios(r["rows"])) for r in measured if r["kind"] == "case"
    ]
    head = (
        *("case, cores", "forward", "/ JAX", "/ PyTorch", "record", "/ JAX", "again / JAX"),
        *("gradient", "/ JAX", "/ PyTorch", "flow", "/ gradient"),
    )
    missed = [line for line in goals if not line["met"]]
    lines = (f"- {m['goal']}, {m['case']}, {m['cores']}: {m['measured']:.2f}, goal {m['limit']:g}" for m in missed)
    title = f"jax {about['jax']}: {len(goals) - len(missed)} of {len(goals)} goals met"
    parts = _about(about, measured), table(title, head, rows), "\n".join(lines)
    return "\n\n".join(part for part in parts if part) + "\n"


def _ratios(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Medians of ours, each with its ratio to the fastest of the others."""
    us = {row: {c["name"]: c["median_us"] for c in candidates} for row, candidates in rows.items()}

    def over(row: str, kind: str, ours: str) -> str:
        peer = best(rows.get(row, []), (kind,))
        return f"{us[row][ours] / peer['median_us']:.2f}" if peer else ""

    def alone(row: str, ours: str) -> str:
        return _three(us[row][ours]) if row in us else ""

    forward, fresh, again = "lstmx in jax.jit", "lstmx.record", "lstmx.record, reuse="
    flow, gradient = "lstmx.gradient_flow, norms", "gradient of lstmx.run"
    return [
        *(alone("forward", forward), over("forward", "jax", forward), over("forward", "torch", forward)),
        *(alone("record", fresh), over("record", "jax", fresh), over("record", "jax", again)),
        *(alone("gradient", "lstmx"), over("gradient", "jax", "lstmx"), over("gradient", "torch", "lstmx")),
        *(alone("flow", flow), f"{us['flow'][flow] / us['flow'][gradient]:.2f}" if "flow" in us else ""),
    ]


def one_line(row: str, case: Case, cores: int, candidates: list[dict[str, Any]]) -> str:
    """A row of one case, as it is printed when it is measured."""
    figures = ", ".join(f"{c['name']} {_three(c['median_us'])}" for c in candidates)
    return f"{row} {case.title}, {cores} core{'s' * (cores > 1)}, µs per step: {figures}"


def _about(about: dict[str, Any], measured: list[dict[str, Any]]) -> str:
    quick = ", --quick" if about["quick"] else ""
    run = f"{about['date']}{quick}, {about['minutes']:.0f} minutes, load {about['load']} before them"
    lines = [f"{about['machine']}; {run}. Float32, µs per step, medians; a case is T×B×D×H."]
    if about["skipped"]:
        lines.append(f"Not installed: {', '.join(about['skipped'])}.")
    return "\n".join([*lines, _agreement(measured)])


def tables(about: dict[str, Any], results: list[dict[str, Any]], goals: list[dict[str, Any]]) -> str:
    """All tables, with the machine above them."""
    measured = [result for result in results if "error" not in result]
    parts = [
        _goals(goals),
        *(_wide(row, measured) for row in ("forward", "gradient")),
        _record(measured),
        _flow(measured),
        _padded(measured),
        _growth(measured),
        _long(measured),
        _tip(measured),
        _dynamics(measured),
        _first_calls(measured),
        _memory(measured),
        _failures(results),
    ]
    return "\n\n".join(part for part in (_about(about, measured), *parts) if part) + "\n"


def _agreement(results: list[dict[str, Any]]) -> str:
    """The largest difference of all from the reference."""
    candidates = (c for r in results for row in r.get("rows", {}).values() for c in row)
    differences = [float(c["difference"]) for c in candidates if c["difference"] is not None]
    if not differences:
        return ""
    worst = float(np.max(differences))
    return f"Largest difference of any candidate from the float64 NumPy reference: {worst:.1e}."


def table(title: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A markdown table under a heading; nothing without rows."""
    head, body = list(head), [list(row) for row in rows]
    if not body:
        return ""
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def _three(number: float) -> str:
    """Three digits, without an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _goals(goals: list[dict[str, Any]]) -> str:
    return table(
        f"Goals: {sum(line['met'] for line in goals)} of {len(goals)} met",
        ("goal", "case", "cores", "against", "medians", "minima", "at most", ""),
        (
            (
                line["goal"],
                line["case"],
                str(line["cores"]),
                line["against"],
                f"{line['measured']:.2f}",
                "" if line["least"] is None else f"{line['least']:.2f}",
                f"{line['limit']:g}",
                "met" if line["met"] else "**missed**",
            )
            for line in goals
        ),
    )


def _of_row(row: str, results: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(case and cores, candidates) of a row, in the order in which they were measured."""
    return [
        (
            f"{Case(*result['case']).title}, {result['cores']} core{'s' * (result['cores'] > 1)}",
            result["rows"][row],
        )
        for result in results
        if result["kind"] == "case" and row in result["rows"]
    ]


def _wide(row: str, results: list[dict[str, Any]]) -> str:
    """Candidates beside each other: µs, and ours over theirs."""
    found = _of_row(row, results)
    names = list(dict.fromkeys(c["name"] for _, candidates in found for c in candidates))
    rows = []
    for title, candidates in found:
        us = {c["name"]: c["median_us"] for c in candidates}
        ours = us[_OURS[row]]
        cells = [f"{_three(us[n])} ({ours / us[n]:.2f})" if n in us else "" for n in names if n != _OURS[row]]
        rows.append((title, f"**{_three(ours)}**", *cells))
    head = ("case", f"**{_OURS[row]}**", *(name for name in names if name != _OURS[row]))
    return table(f"{row.capitalize()}: µs per step (ours over this one)", head, rows)


def _record(results: list[dict[str, Any]]) -> str:
    found = _of_row("record", results)
    names = list(
        dict.fromkeys(
            c["name"]
            for _, candidates in found
            for c in candidates
            if c["kind"] == "loop" or c["name"].startswith("lstmx.record")
        )
    )
    rows = []
    for title, candidates in found:
        us = {c["name"]: c["median_us"] for c in candidates}
        peer = best(candidates, ("jax", "torch"))
        base = peer["median_us"] if peer else us["lstmx, forward alone"]
        cells = [f"{_three(us[name])} ({us[name] / base:.2f})" if name in us else "" for name in names]
        whose = peer["name"].removesuffix(", forward alone") if peer else "lstmx"
        rows.append((title, f"{_three(base)} ({whose})", *cells))
    return table(
        "Forward and full record: µs per step (over the best peer's forward without a record)",
        ("case", "best peer's forward", *names),
        rows,
    )


def _flow(results: list[dict[str, Any]]) -> str:
    found = _of_row("flow", results)
    names = [c["name"] for c in found[0][1]] if found else []
    rows = []
    for title, candidates in found:
        run = candidates[-1]["median_us"]
        rows.append((title, *(f"{_three(c['median_us'])} ({c['median_us'] / run:.2f})" for c in candidates)))
    return table("Gradient flow: µs per step (over run)", ("case", *names), rows)


def _padded(results: list[dict[str, Any]]) -> str:
    rows = []
    for title, candidates in _of_row("padded", results):
        us = {c["name"]: c["median_us"] for c in candidates}
        cells = (f"{_three(us[f'{n}, lengths='])} ({us[f'{n}, lengths='] / us[n]:.2f})" for n in _WHOLE)
        rows.append((title, *cells))
    head = ("case", *(f"{name}, lengths=" for name in _WHOLE))
    return table("Sequences of T/2 to T steps: µs per step (over the same batch without lengths)", head, rows)


def _growth(results: list[dict[str, Any]]) -> str:
    parts = []
    for result in results:
        if result["kind"] != "growth":
            continue
        lines = (
            (Case(*g["case"]).title, g["name"], _three(g["median_us"]), f"{g['time']:.2f}", f"{g['memory']:.2f}")
            for g in result["growth"]
        )
        head = ("T case", "what", "µs per step", "time(2T) / time(T)", "memory(2T) / memory(T)")
        parts.append(table("Growth with T", head, lines))
        for key, letter in (("batches", "B"), ("widths", "H")):
            lines = ((Case(*g["case"]).title, *(_three(us) for us in g["us"].values())) for g in result[key])
            head = ("case", *result[key][0]["us"])
            parts.append(table(f"Growth with {letter}: µs per step, one core", head, lines))
    return "\n\n".join(parts)


def _long(results: list[dict[str, Any]]) -> str:
    lines = [line for result in results if result["kind"] == "long" for line in result["long"]]
    return table(
        "Gradient of one long sequence, D = 16, H = 32, one core",
        ("what", "T", "µs per step", "least", "compile s", "temporary MB"),
        (
            (
                line["name"],
                f"{line['length']:,}",
                _three(line["median_us"]),
                _three(line["least_us"]),
                f"{line['compile_s']:.2f}",
                f"{line['temporary_bytes'] / 1e6:.1f}",
            )
            for line in lines
        ),
    )


def _dynamics(results: list[dict[str, Any]]) -> str:
    lines = [line for result in results if result["kind"] == "dynamics" for line in result["dynamics"]]
    return table(
        "Spectra and fixed points, float64, all cores, one process: seconds",
        ("what", "steps or candidates", "median", "least", "first call"),
        (
            (
                line["name"],
                f"{line['count']:,}",
                *(f"{line[key]:.2f}" for key in ("median_s", "least_s", "first_s")),
            )
            for line in lines
        ),
    )


def _tip(results: list[dict[str, Any]]) -> str:
    us: dict[str, dict[bool, float]] = {}
    title = ""
    for result in results:
        if result["kind"] == "tip":
            title = Case(*result["case"]).title
            for row, candidates in result["rows"].items():
                for c in candidates:
                    if c["kind"] == "ours" and "forward alone" not in c["name"]:
                        name = f"{row}: {c['name']}"
                        us.setdefault(name, {})[result["flag"]] = c["median_us"]
    return table(
        f"A small loop as one kernel, {title}, one core: XLA_FLAGS=--xla_backend_extra_options="
        "xla_cpu_small_while_loop_byte_threshold=1000000000",
        ("what", "µs per step", "with the flag"),
        ((name, *(_three(u.get(flag, float("nan"))) for flag in (False, True))) for name, u in us.items()),
    )


def _first_calls(results: list[dict[str, Any]]) -> str:
    runs: dict[str, list[dict[str, float]]] = {}
    for result in results:
        if result["kind"] == "first":
            runs.setdefault(result["candidate"], []).append(result["seconds"])
    rows = []
    for name, seconds in runs.items():
        cells = []
        for key in ("import_s", "forward_s", "gradient_s"):
            values = sorted(s[key] for s in seconds if key in s)
            cells.append(f"{values[len(values) // 2]:.2f}" if values else "")
        rows.append((name, *cells))
    head = ("module", "import", "first forward", "first gradient")
    return table("Fresh processes: seconds, median; 100×1×16×32, one core", head, rows)


def _memory(results: list[dict[str, Any]]) -> str:
    found: dict[str, dict[str, float]] = {}
    for result in results:
        if result["kind"] == "memory":
            found.setdefault(Case(*result["case"]).title, {})[result["candidate"]] = result["memory"]["mb"]
    names = list(dict.fromkeys(name for line in found.values() for name in line))
    rows = (
        (case, *(f"{line[name]:.1f}" if name in line else "" for name in names)) for case, line in found.items()
    )
    title = "Peak resident memory of a gradient: MB above what was resident before, results included, one core"
    return table(title, ("case", *names), rows)


def _failures(results: list[dict[str, Any]]) -> str:
    failed = [result for result in results if "error" in result]
    lines = (
        (f"{r['kind']} {r.get('case', '')} {r.get('candidate', '')}", r["error"].splitlines()[-1]) for r in failed
    )
    return table("Failed", ("job", "error"), lines)
