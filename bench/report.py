"""What the runs came to: a table, the ratios beside what was aimed at, and a plot."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

from bench.load import Result
from bench.targets import DIRECT, REFERENCE, REFERENCE_DELTAS

OWN_PARTS = ("web", "worker", "redis")
PACKAGES = ("celery", "redis", "gunicorn", "gevent", "httpx", "aiohttp", "uvloop", "fastapi", "uvicorn", "websockets")


@dataclass(frozen=True)
class Run:
    """One target under one load in one round."""

    round: int
    load: str
    target: str
    result: Result


@dataclass(frozen=True)
class Aim:
    """A ratio or a difference within one round, and what it should be."""

    what: str
    load: str
    value: Callable[[Result, Result, Result], float]
    limit: float
    at_least: bool = False
    unit: str = ""
    needs: tuple[str, ...] = (DIRECT,)

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _throughput(own: Result, direct: Result, reference: Result) -> float:
    return own.tokens_per_second / direct.tokens_per_second


def _extra_delay(own: Result, direct: Result, reference: Result) -> float:
    return own.token_p50 - direct.token_p50


def _extra_first(own: Result, direct: Result, reference: Result) -> float:
    return own.first_p50 - direct.first_p50


def _delay_ratio(own: Result, direct: Result, reference: Result) -> float:
    return (own.token_p50 - direct.token_p50) / max(1e-3, reference.token_p50 - direct.token_p50)


def _cpu_ratio(own: Result, direct: Result, reference: Result) -> float:
    return own.cpu_per_1000(*OWN_PARTS) / reference.cpu_per_1000()


def _speed_ratio(own: Result, direct: Result, reference: Result) -> float:
    return own.tokens_per_second / reference.tokens_per_second


_BOTH = (DIRECT, REFERENCE)
AIMS = (
    Aim("throughput over direct", "100", _throughput, 0.98, at_least=True),
    Aim("throughput over direct", "300", _throughput, 0.80, at_least=True),
    Aim("extra delay of a token, median", "20", _extra_delay, 2, unit=" ms"),
    Aim("extra delay of a token, median", "100", _extra_delay, 6, unit=" ms"),
    Aim("extra delay of a token, median", "300", _extra_delay, 25, unit=" ms"),
    Aim("extra delay of a token, over the reference's", "100", _delay_ratio, 0.5, needs=_BOTH),
    Aim("extra delay of a token, over the reference's", "300", _delay_ratio, 0.1, needs=_BOTH),
    Aim("extra delay of the first token, median", "20", _extra_first, 25, unit=" ms"),
    Aim("extra delay of the first token, median", "100", _extra_first, 40, unit=" ms"),
    Aim("CPU of web, worker, Redis a token, over the reference's", "100", _cpu_ratio, 1.2, needs=_BOTH),
    Aim("CPU of web, worker, Redis a token, over the reference's", "300", _cpu_ratio, 0.5, needs=_BOTH),
    Aim("full speed, over the reference", "full speed", _speed_ratio, 3.0, at_least=True, needs=(REFERENCE,)),
)


def machine() -> str:
    """Say what all of this was measured on."""
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "?")
    memory = next((int(line.split()[1]) // 1024**2 for line in _lines("/proc/meminfo") if "MemTotal" in line), 0)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {os.cpu_count()} cores ({cpu}), {memory} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; {packages}. "
        f"Load average at the start: {load:.1f}. Load generator and provider on the same cores."
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def table(runs: list[Run]) -> str:
    """Return the medians over the rounds, a row for each load and target. Delays are milliseconds."""
    heads = ("load", "target", "done", "first token p50 / p99", "token p50 / p99", "tokens/s")
    heads += ("CPU ms per 1,000 tokens", "lost, wrong")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for load in _names(run.load for run in runs):
        for target in _names(run.target for run in runs if run.load == load):
            rows.append(_row(load, target, _results(runs, load, target)))
    return "\n".join(rows)


def _row(load: str, target: str, results: list[Result]) -> str:
    def middle(value: Callable[[Result], float]) -> float:
        return statistics.median(map(value, results))

    parts = {part: middle(lambda result, part=part: result.cpu_per_1000(part)) for part in results[0].cpu}
    cpu = " + ".join(f"{part} {value:.0f}" for part, value in parts.items())
    own = sum(value for part, value in parts.items() if part != "postgresql")
    cells = (
        load,
        target,
        f"{min(result.done for result in results)} of {results[0].replies}",
        f"{middle(lambda r: r.first_p50):.1f} / {middle(lambda r: r.first_p99):.0f}",
        f"{middle(lambda r: r.token_p50):.2f} / {middle(lambda r: r.token_p99):.1f}",
        f"{middle(lambda r: r.tokens_per_second):,.0f}",
        f"{own:.0f} ({cpu})" if len(parts) > 1 else f"{own:.0f}" if parts else "",
        f"{sum(result.lost for result in results)}, {sum(result.wrong for result in results)}",
    )
    return f"| {' | '.join(cells)} |"


def aims(runs: list[Run]) -> str:
    """Return what was aimed at and what was reached: the median of the rounds' own ratios, and their range."""
    over_deltas = _aims(runs, [aim for aim in AIMS if REFERENCE in aim.needs], REFERENCE_DELTAS)
    more = f"The same over the reference with the smallest frames:\n\n{over_deltas}" if over_deltas else ""
    return "\n\n".join(filter(None, [_aims(runs, AIMS, REFERENCE), more]))


def _aims(runs: list[Run], wanted: Iterable[Aim], reference: str) -> str:
    others = (DIRECT, REFERENCE, REFERENCE_DELTAS)
    own = [name for name in _names(run.target for run in runs) if name not in others]
    rows = [f"| what | replies | aim | {' | '.join(own)} |", "|---|---|---|" + "---|" * len(own)]
    for aim in wanted:
        cells = [_reached(runs, aim, name, reference) for name in own]
        if any(cells):
            bound = "at least" if aim.at_least else "at most"
            rows.append(f"| {aim.what} | {aim.load} | {bound} {aim.limit:g}{aim.unit} | {' | '.join(cells)} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _reached(runs: list[Run], aim: Aim, target: str, reference: str) -> str:
    found = {(run.round, run.target): run.result for run in runs if run.load == aim.load}
    values = []
    for number in _names(run.round for run in runs):
        own = found.get((number, target))
        others = [found.get((number, name)) for name in (DIRECT, reference)]
        needed = [reference if name == REFERENCE else name for name in aim.needs]
        if own and all(found.get((number, name)) for name in needed):
            values.append(aim.value(own, *((other or own) for other in others)))
    if not values:
        return ""
    middle = statistics.median(values)
    mark = "**yes**" if aim.met(middle) else "no"
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{middle:.2f}{aim.unit}{spread} {mark}"


def _results(runs: list[Run], load: str, target: str) -> list[Result]:
    return [run.result for run in runs if run.load == load and run.target == target]


def _names(values: Iterable) -> list:
    return list(dict.fromkeys(values))


# The plot: three panels of bars, drawn by hand

COLOURS = ("#8a8f98", "#d1495b", "#2e7d6b", "#2f6690", "#b7903c", "#6b4c9a")
PANELS: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("delay of a token, median, ms", lambda result: result.token_p50),
    ("delay of the first token, median, ms", lambda result: result.first_p50),
    ("tokens per second", lambda result: result.tokens_per_second),
    ("CPU ms per 1,000 tokens", lambda result: result.cpu_per_1000()),
)
WIDTH, HEIGHT, BAR, GAP, TOP = 460, 230, 18, 28, 60


def plot(runs: list[Run]) -> str:
    """Return an SVG: what each target came to under each load, shorter being better but for tokens per second."""
    targets = _names(run.target for run in runs)
    body = [_legend(targets)]
    for index, (title, value) in enumerate(PANELS):
        x, y = index % 2 * WIDTH, TOP + index // 2 * HEIGHT
        body.append(f'<g transform="translate({x},{y})">{_panel(runs, targets, title, value)}</g>')
    size = f'width="{2 * WIDTH}" height="{TOP + 2 * HEIGHT}"'
    style = "<style>text{font:11px sans-serif;fill:#333}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect {size} fill="#fff"/>{style}{"".join(body)}</svg>\n'


def _legend(targets: list[str]) -> str:
    return "".join(
        f'<rect x="{20 + 180 * i}" y="16" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>'
        f'<text x="{38 + 180 * i}" y="26">{escape(name)}</text>'
        for i, name in enumerate(targets)
    )


def _panel(runs: list[Run], targets: list[str], title: str, value: Callable[[Result], float]) -> str:
    loads = _names(run.load for run in runs)
    heights = {
        (load, name): statistics.median(map(value, found))
        for load in loads
        for name in targets
        if (found := _results(runs, load, name))
    }
    # Within one load: what is compared is targets, and the loads lie orders of magnitude apart.
    drawn = [f'<text x="20" y="0" style="font-weight:bold">{escape(title)}</text>']
    for place, load in enumerate(loads):
        highest = max((heights.get((load, name), 0.0) for name in targets), default=0.0) or 1.0
        left = 20 + place * (len(targets) * BAR + GAP)
        drawn.append(f'<text x="{left}" y="{HEIGHT - 30}">{escape(load)}</text>')
        for index, name in enumerate(targets):
            height = heights.get((load, name), 0.0)
            tall = height / highest * (HEIGHT - 80)
            x, y = left + index * BAR, HEIGHT - 46 - tall
            colour = COLOURS[index % len(COLOURS)]
            drawn.append(f'<rect x="{x}" y="{y:.1f}" width="{BAR - 3}" height="{tall:.1f}" fill="{colour}"/>')
            if height:
                label = f"{height:,.0f}" if height >= 10 else f"{height:.1f}"
                drawn.append(f'<text x="{x}" y="{y - 3:.1f}" style="font-size:8px">{label}</text>')
    return "".join(drawn)
