"""Seconds until the package can be used, in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.bench import Bench
from benchmarks.timing import Quartiles

TORCH, EVERYTHING, HELP = "import torch", "import every public name", "branchtune --help"


def measure(bench: Bench) -> None:
    what = "startup"
    if not bench.wants(what):
        return
    names = "import branchtune; [getattr(branchtune, name) for name in branchtune.__all__]"
    calls = {
        TORCH: Interpreter("-c", "import torch"),
        EVERYTHING: Interpreter("-c", names),
        HELP: Interpreter("-m", "branchtune", "--help"),
    }
    found = bench.compare(what, calls, base=TORCH)
    beyond = [a - b for a, b in zip(found.seconds[EVERYTHING], found.seconds[TORCH], strict=True)]
    name = "seconds to import every public name, beyond torch's own"
    bench.goal(name, 2.0, Quartiles.of(beyond), of=found, sides=(EVERYTHING, TORCH))
    bench.goal("seconds of branchtune --help", 1.0, Quartiles.of(found.seconds[HELP]), of=found, sides=(HELP,))


class Interpreter:
    """Runs a Python of its own."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def __call__(self, *options: str) -> str:
        command = [sys.executable, "-W", "ignore", *options, *self.arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr

    def table(self) -> str:
        """What it imports, the slowest first, as `python -X importtime` says."""
        lines = [line for line in self("-X", "importtime").splitlines() if line.startswith("import time:")]
        heading, *rows = lines
        slowest = sorted(rows, key=lambda line: -int(line.split("|")[1]))[:40]
        return "\n".join([heading, *slowest])
