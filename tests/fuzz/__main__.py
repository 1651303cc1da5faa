"""`python -m tests.fuzz`: many examples of every reader, over all cores, and a table of what became of them.

`python -m tests.fuzz NAME --example 1234` runs one example here and shows where it ends.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.harness import Bench, Tally, run, show_trace_of_hangs
from tests.fuzz.readers import READERS

CHUNK = 1000


def main() -> int:
    """Returns 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="readers; all by default")
    parser.add_argument("--examples", type=int, default=20_000, help="of each reader")
    parser.add_argument("--first", type=int, default=0, help="the number of the first example")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no part after so long")
    parser.add_argument("--example", type=int, help="run this one alone, here")
    options = parser.parse_args()
    names = options.names or list(READERS)
    if options.example is not None:
        return show(names[0], options.example)
    tallies = run_all(names, options.first, options.examples, options.jobs, time.monotonic() + options.seconds)
    print_table(tallies)
    return int(any(tally.faults for tally in tallies.values()))


def run_all(names: list[str], first: int, examples: int, jobs: int, deadline: float) -> dict[str, Tally]:
    """Returns a tally for each reader; parts of `CHUNK` examples run side by side."""
    tallies = {name: Tally() for name in names}
    parts = [
        (name, start, min(CHUNK, first + examples - start))
        for start in range(first, first + examples, CHUNK)
        for name in names
    ]

    def work(part: tuple[str, int, int]) -> tuple[str, Tally]:
        return part[0], Tally() if time.monotonic() > deadline else run(*part)

    with ThreadPoolExecutor(jobs) as pool:
        for name, tally in pool.map(work, parts):
            tallies[name].add(tally)
            for fault in tally.faults:
                print(f"{name} --example {fault.example}: {fault.problem}", flush=True)
    return tallies


def print_table(tallies: dict[str, Tally]) -> None:
    """One line per reader, and their sum."""
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    print(f"{'reader':<24}{'examples':>10}{'refused':>10}{'accepted':>10}{'faults':>8}{'longest s':>11}{'most MB':>9}")
    for name, t in [*tallies.items(), ("all", total)]:
        print(
            f"{name:<24}{t.examples:>10,}{t.refused:>10,}{t.accepted:>10,}{len(t.faults):>8,}"
            f"{t.longest:>11.2f}{t.megabytes:>9.0f}"
        )


def show(name: str, example: int) -> int:
    """Runs one example in this process and lets its error through."""
    show_trace_of_hangs()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(READERS[name], Path(folder))
        bench.damage(example)
        for file in bench.whole:
            content = (bench.folder / file).read_bytes()
            print(f"--- {file}, {len(content)} bytes\n{content[:3000]!r}")
        print("---", bench.judge_damaged())
        bench.damage(example)
        print(repr(bench.reader.read(bench.folder))[:2000])
    return 0


if __name__ == "__main__":
    sys.exit(main())
