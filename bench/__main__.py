"""Measure the product against the provider itself and against a reference, all in one run.

    python -m bench                                    the ratios: 20, 100, 300 replies and full speed, in turn
    python -m bench --long                             and idle sockets, fan-out, depth, enqueueing, joining
    python -m bench --only product-postgresql --replies 100 --rounds 1 --profile
    python -m bench --only direct,product-sqlite,product-sqlite@/tmp/before --replies 300

A whole run writes its tables and its plot to bench/results; a part of one only prints them.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import uvloop

from bench import flooder, long, profile, report
from bench.load import Load, Result, converse
from bench.report import Run
from bench.stub import Course
from bench.targets import NAMES, Target, started

RESULTS = Path(__file__).parent / "results"
FULL_SPEED = Load("full speed", 20, Course(tokens=1000, delay_ms=0), start_seconds=0)
WARM_UP = Load("warm-up", 8, Course(tokens=50, delay_ms=5), start_seconds=0.2)


def main() -> None:
    """Run what the command line asks for."""
    asked = _arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    facts = report.machine()
    print(facts, flush=True)
    names = tuple(asked.only.split(",")) if asked.only else NAMES
    environ = flooder.SETTINGS if asked.part == "flood" else {}
    environ = environ | dict(pair.split("=", 1) for pair in asked.set)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        started(names, Path(folder), environ=environ) as targets,
    ):
        runs = uvloop.run(_ratios(targets, asked)) if asked.rounds else []
        more = uvloop.run(long.measure(targets, asked.part, asked.messages)) if asked.long else ""
    _tell(facts, runs, more, write=not (asked.only or asked.replies or asked.part or asked.set))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TARGETS", help=f"some of {', '.join(NAMES)}; NAME@FOLDER: another checkout")
    parser.add_argument("--replies", metavar="LOADS", help="some of 20,100,300,full; 50x10: 50 of 10 tokens")
    parser.add_argument("--rounds", type=int, default=3, help="how often; 0: only what --long adds")
    parser.add_argument("--connected", action="store_true", help="open all sockets before the first conversation")
    parser.add_argument("--profile", action="store_true", help="write flame graphs of web and worker (needs py-spy)")
    parser.add_argument("--long", action="store_true", help="idle sockets, fan-out, depth, enqueueing, joining")
    parser.add_argument("--part", choices=long.PARTS, help="of --long only this")
    parser.add_argument("--messages", type=int, default=1_000_000, help="in the deep session of --long")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the product's")
    return parser.parse_args()


def _loads(replies: str | None) -> list[Load]:
    words = replies.split(",") if replies else ["20", "100", "300", "full"]
    return [FULL_SPEED if word.startswith("full") else _load(word) for word in words]


def _load(word: str) -> Load:
    replies, _, tokens = word.partition("x")
    return Load(word, int(replies), Course(tokens=int(tokens or 200)))


async def _ratios(targets: list[Target], asked: argparse.Namespace) -> list[Run]:
    for target in targets:
        await _run(target, WARM_UP, asked)
    runs = []
    for number in range(asked.rounds):
        for load in _loads(asked.replies):
            # Who goes first has the quieter machine: everyone does in turn.
            turn = number % len(targets)
            for target in targets[turn:] + targets[:turn]:
                result = await _run(target, load, asked)
                print(f"round {number + 1}, {load.name}, {target.name}: {_line(result)}", flush=True)
                runs.append(Run(number, load.name, target.name, result))
    order = [target.name for target in targets]
    return sorted(runs, key=lambda run: (run.round, order.index(run.target)))


async def _run(target: Target, load: Load, asked: argparse.Namespace) -> Result:
    places = await target.places(load.replies, load.course)
    if asked.connected:
        places = await target.connected(places)
    with profile.recording(target, load, wanted=asked.profile and load is not WARM_UP, folder=RESULTS):
        return await converse(target.ask, places, load, cpu=target.cpu)


def _line(result: Result) -> str:
    return (
        f"{result.done}/{result.replies} done, first {result.first_p50:.1f}/{result.first_p99:.0f} ms, "
        f"token {result.token_p50:.2f}/{result.token_p99:.1f} ms, {result.tokens_per_second:,.0f} tok/s, "
        f"CPU {result.cpu_per_1000():.0f} ms/1k, lost {result.lost}, wrong {result.wrong}"
        + (f"; {result.faults}" if result.faults else "")
    )


def _tell(facts: str, runs: list[Run], more: str, *, write: bool) -> None:
    tables = "\n\n".join(filter(None, [report.aims(runs), report.table(runs)])) if runs else ""
    text = "\n\n".join(filter(None, ["# Measured", facts, tables, more])) + "\n"
    print(f"\n{text}")
    if write:
        RESULTS.mkdir(exist_ok=True)
        name = "long" if more else "short"
        (RESULTS / f"{name}.md").write_text(text)
        if runs:
            (RESULTS / f"{name}.svg").write_text(report.plot(runs))
    spoilt = [run for run in runs if run.result.done < run.result.replies]
    if any(run.target not in ("direct", "reference") for run in spoilt):
        raise SystemExit("Replies were lost or not whole: see the last column.")


if __name__ == "__main__":
    main()
