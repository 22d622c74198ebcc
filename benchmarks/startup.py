"""Seconds until the package can be used, in fresh interpreters."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.bench import Bench

TIMES = 5
EVERYTHING = "import branchtune; [getattr(branchtune, name) for name in branchtune.__all__]"


def measure(bench: Bench) -> None:
    torch = _seconds("-c", "import torch")
    everything = _seconds("-c", EVERYTHING)
    bench.goal("seconds to import every public name, beyond torch's own", 2.0, everything - torch)
    bench.goal("seconds of branchtune --help", 1.0, _seconds("-m", "branchtune", "--help"))


def _seconds(*arguments: str) -> float:
    """The median of several, after one that fills the caches."""
    times = []
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-W", "ignore", *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
