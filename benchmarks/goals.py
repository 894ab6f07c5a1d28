"""The goals that this library was given, each with what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.sizes import Case


def goals(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per goal and case: the goal, where, the measured ratio, the limit, and whether it is met."""
    found = []
    for result in results:
        if "error" not in result and result["kind"] in _JUDGES:
            found += _JUDGES[result["kind"]](result)
    return sorted(found, key=lambda line: line["order"])


def best(candidates: list[dict[str, Any]], kinds: tuple[str, ...]) -> dict[str, Any] | None:
    """The fastest candidate of these kinds by its median."""
    among = [c for c in candidates if c["kind"] in kinds]
    return min(among, key=lambda c: c["median_us"], default=None)


def _of_case(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    case = Case(*result["case"])
    long_or_wide = case.units <= 128 and (case.length >= 10_000 or case.batch >= 8)
    for order, row, to_jax, to_torch in (
        (0, "forward", 1.05, 1.05),
        (2, "gradient", 0.7 if long_or_wide else 0.9, 0.95),
    ):
        candidates = result["rows"].get(row, [])
        for ours in (c for c in candidates if c["name"] in ("lstmx", "lstmx in jax.jit")):
            for kind, limit in (("jax", to_jax), ("torch", to_torch)):
                peer = best(candidates, (kind,))
                title = f"{row}{ours['name'].removeprefix('lstmx')} over {_WHO[kind]}"
                if peer:
                    yield _compared(order, title, result, ours, peer, limit)
    if "record" in result["rows"]:
        yield from _of_record(result)
    named = {row: {c["name"]: c for c in result["rows"].get(row, [])} for row in ("flow", "padded")}
    if flow := named["flow"]:
        ours, gradient = flow["lstmx.gradient_flow, norms"], flow["gradient of lstmx.run"]
        limit = 1.0 if case.units >= 256 else 1.2
        yield _compared(3, "gradient_flow, norms over", result, ours, gradient, limit)
    if padded := named["padded"]:
        for name in ("forward", "gradient"):
            ours, whole = padded[f"{name}, lengths="], padded[name]
            yield _compared(3, f"{name} with lengths= over the batch without", result, ours, whole, 1.1)


def _of_record(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    case, candidates = Case(*result["case"]), result["rows"]["record"]
    named = {c["name"]: c for c in candidates}
    peer = best(candidates, ("jax",))
    fresh = {(1, 32): 1.5, (1, 128): 1.15}.get((case.batch, case.units), 1.3)
    for name, limit in (("lstmx.record", fresh), ("lstmx.record, reuse=", 1.15)) if peer else ():
        yield _compared(1, f"{name} over the best JAX peer's forward", result, named[name], peer, limit)
    loop = next((c for c in candidates if c["kind"] == "loop" and "PyTorch" in c["name"]), None)
    if loop and (case.batch, case.units) == (1, 32):
        ours = named["lstmx.record, then .gates"]
        yield _compared(4, "record and gates over the PyTorch LSTMCell loop", result, ours, loop, 0.1)


def _of_long(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    lines = {line["name"]: line for line in result["long"]}
    autodiff = lines["autodiff at the shorter T"]
    for name, line in lines.items():
        if line["length"] > autodiff["length"]:
            title = f"gradient at T = {line['length']:,}, {name}"
            yield _compared(3, title, result, line, autodiff, 0.6)
            yield _line(3, f"{title}: temporary MB", result, line["temporary_bytes"] / 1e6, 80, "")


def _of_growth(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for line in result["growth"]:
        for what in ("time", "memory"):
            title = f"{what}(2T) / {what}(T), {line['name']}"
            yield _line(5, title, result | {"case": line["case"]}, line[what], 2.3, "itself at T")


def _of_dynamics(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    by_count = {line["name"]: line for line in result["dynamics"]}
    leading = next(line for name, line in by_count.items() if "leading" in name)
    run = by_count["run"]["median_s"]
    yield _line(
        6, f"{leading['name']} over {leading['count']:,} steps", result, leading["median_s"] / run, 8, "run"
    )
    for name, limit in (("all 64 exponents and their check", 15), ("fixed points, 128 units", 60)):
        line = by_count[name]
        yield _line(6, f"{name} ({line['count']:,}): seconds", result, line["median_s"], limit, "")


def _compared(
    order: int, title: str, result: dict[str, Any], ours: dict[str, Any], other: dict[str, Any], limit: float
) -> dict[str, Any]:
    """A line on two candidates: judged by medians, with the ratio of the minima beside it."""
    ratio = ours["median_us"] / other["median_us"]
    least = ours["least_us"] / other["least_us"]
    return _line(order, title, result, ratio, limit, other["name"].removesuffix(", forward alone")) | {
        "least": least
    }


def _line(
    order: int, title: str, result: dict[str, Any], measured: float, limit: float, against: str
) -> dict[str, Any]:
    return {
        "order": order,
        "goal": title,
        "case": Case(*result["case"]).title if "case" in result else "",
        "cores": result["cores"],
        "against": against,
        "measured": measured,
        "least": None,
        "limit": limit,
        "met": measured <= limit,
    }


_WHO = {"jax": "the best JAX peer", "torch": "PyTorch"}
_JUDGES = {"case": _of_case, "long": _of_long, "growth": _of_growth, "dynamics": _of_dynamics}
