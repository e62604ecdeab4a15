"""Results of `against_keda.py` as a table: each figure of KEDA's, and how many times ours it is.

Owns the words and the ratios. Measures nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

Results = Mapping[str, Any]
Figure = Callable[[Any], float | None]

_BURSTS: tuple[tuple[str, Figure], ...] = (
    ("to 1, p50 s", lambda r: r["to_1_s"]["p50"]),
    ("to 100, mean s", lambda r: r["to_100_mean_s"]),
    ("to 100, p95 s", lambda r: r["to_100_s"]["p95"]),
    ("to 100, max s", lambda r: r["to_100_s"]["max"]),
    ("empty to 0, p50 s", lambda r: r["down"]["empty_to_0_s"]["p50"]),
    ("smallest of 100 with 50 in work", lambda r: min(r["down"]["smallest_while_in_work"])),
)
_MANY: tuple[tuple[str, Figure], ...] = (
    ("all made, s", lambda r: r["b4"]["begun_s"]),
    ("to 1, p50 s", lambda r: r["b2"]["to_1_s"]["p50"]),
    ("to 2, p50 s", lambda r: r["b2"]["to_2_s"]["p50"]),
    ("to 2, p95 s", lambda r: r["b2"]["to_2_s"]["p95"]),
    ("not within 100 s", lambda r: r["b2"]["not_within_100_s"]),
    ("idle, writes/s", lambda r: r["b3"]["idle"]["writes_per_s"]),
    ("idle, reads/s", lambda r: r["b3"]["idle"]["reads_per_s"]),
    ("active, writes/s", lambda r: r["b3"]["active"]["writes_per_s"]),
    ("active, reads/s", lambda r: r["b3"]["active"]["reads_per_s"]),
    ("active, own cores", lambda r: _own(r["b3"]["active"]["cores"])),
    ("active, API server cores", lambda r: r["b3"]["active"]["cores"]["kube-apiserver"]),
    ("own memory, MB", lambda r: _own(r["b3"]["active"]["rss_mb"])),
)


def table(results: Results) -> str:
    """All that the file holds; a figure of KEDA's is followed by its ratio to ours."""
    lines: list[str] = []
    lines += _part("bursts", "bursts astrid", ["default", "tuned", "expert"], _BURSTS, results)
    for count in (100, 300):
        rows = [
            key.removeprefix("many ") for key in results if key.startswith("many ") and f"-{count}" in key
        ]
        others = [each for each in rows if not each.startswith("astrid")]
        lines += _part("many", f"many astrid-{count}", others, _MANY, results)
    lines += _waits(
        {key.removeprefix("waits "): each for key, each in results.items() if key.startswith("waits ")}
    )
    for key in ("outage astrid", "outage keda"):
        for name, found in results.get(key, {}).get("contenders", {}).items():
            first, last = found["first_shrink_after_return_s"], found["to_0_after_return_s"]
            lines.append(
                f"outage of {results[key]['away_s']:.0f} s, {name}: "
                f"shrank meanwhile {found['shrank_while_away']}, "
                f"first shrink {first['min']} to {first['max']} s after the return, to 0 {last['p50']} s"
            )
    return "\n".join(lines)


def _waits(loads: Mapping[str, Any]) -> list[str]:
    """Waits and pod-seconds of each contender with real workers."""
    lines = [
        "",
        f"{'waits':<16}{'':<14}{'p50':>8}{'p95':>8}{'max':>8}{'pod-s':>9}{'pods':>6}{'cut':>5}{'twice':>7}",
    ]
    for load, contenders in loads.items():
        for who, said in contenders.items():
            if isinstance(said, dict) and "wait_s" in said:
                wait = said["wait_s"]
                lines.append(
                    f"{load:<16}{who:<14}{wait['p50']:>8.2f}{wait['p95']:>8.2f}{wait['max']:>8.2f}"
                    f"{said['pod_seconds']:>9.0f}{said['pods']:>6}{said['broken_off']:>5}{said['ended_twice']:>7}"
                )
    return lines if len(lines) > 2 else []


def _part(
    part: str, ours: str, others: list[str], figures: tuple[tuple[str, Figure], ...], results: Results
) -> list[str]:
    if ours not in results:
        return []
    there = [each for each in others if f"{part} {each}" in results]
    heads = [ours.removeprefix(f"{part} "), *there]
    lines = ["", f"{part:<34}" + "".join(f"{each:>24}" for each in heads)]
    for words, figure in figures:
        mine = figure(results[ours])
        cells = [_said(mine), *(_beside(figure(results[f"{part} {each}"]), mine) for each in there)]
        lines.append(f"{words:<34}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def _beside(theirs: float | None, mine: float | None) -> str:
    if theirs is None or not mine:
        return _said(theirs)
    return f"{_said(theirs)} ({theirs / mine:.2f} ×)"


def _said(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _own(by_process: Mapping[str, float]) -> float:
    """Of the contender's processes, not the control plane's."""
    return sum(by_process.get(name, 0.0) for name in ("operator", "adapter"))
