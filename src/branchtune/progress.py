"""Progress of long steps: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

SECONDS_BETWEEN_LINES = 30.0


class Advance(Protocol):
    """Called after every unit of work; `detail` is shown beside the bar."""

    def __call__(self, detail: str = "", /) -> None: ...


class _Console(Console):
    """Whose reader may go away (`| head`): rich would end the process, here the command line decides."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Reporter:
    """Where messages and progress of a run go.

    Args:
        quiet: one plain line at the end of a step, even on a terminal. Without it and without a terminal, a step that
            takes longer also says every half minute how far it is.
        console: for tests; default the terminal.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or _Console(highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.bars = self.console.is_terminal and not quiet

    @classmethod
    def silent(cls) -> Reporter:
        """One that prints nothing."""
        return cls(quiet=True, console=Console(quiet=True))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def table(self, title: str, heading: Sequence[str], body: Sequence[Sequence[str]]) -> None:
        """Print a table whose first column is text and whose others are numbers."""
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, text in enumerate(heading):
            table.add_column(text, justify="right" if index else "left", overflow="fold")
        for row in body:
            table.add_row(*row)
        self.console.print(table)

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        """A step of `total` units; yields what to call after each."""
        if self.bars:
            yield from self._bar(title, total)
        else:
            yield from self._lines(title, total)

    def _bar(self, title: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task(title, total=total, detail="")

            def advance(detail: str = "", /) -> None:
                progress.update(bar, advance=1, detail=detail)

            yield advance

    def _lines(self, title: str, total: int) -> Iterator[Advance]:
        start = said = time.monotonic()
        done = 0

        def advance(detail: str = "", /) -> None:
            nonlocal done, said
            done, now = done + 1, time.monotonic()
            if not self.quiet and done < total and now - said >= SECONDS_BETWEEN_LINES:
                said = now
                left = timedelta(seconds=round((now - start) / done * (total - done)))
                self.say(f"{title}: {done} of {total}{', ' if detail else ''}{detail}, {left} left")

        try:
            yield advance
        except BaseException:
            if done:
                self.say(f"{title}: stopped after {done} of {total}")
            raise
        self.say(f"{title}: {done} of {total} in {time.monotonic() - start:.1f} s")
