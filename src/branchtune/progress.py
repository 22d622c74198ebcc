"""Progress of long steps: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from branchtune.tables.cells import Cells

SECONDS_BETWEEN_LINES = 30.0
REFRESHES_PER_SECOND = 2.0  # of what is drawn above a bar


class Advance(Protocol):
    """Called after every unit of work; `detail` is shown beside the bar."""

    def __call__(self, detail: str = "", /) -> None: ...


class _Console(Console):
    """Whose reader may go away (`| head`): rich would end the process, here the command line decides."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _BarUnder(Progress):
    """A bar, and above it what changes while the step goes on."""

    def __init__(self, above: Callable[[], RenderableType], console: Console) -> None:
        self.above = above
        super().__init__(*_columns(), console=console, refresh_per_second=REFRESHES_PER_SECOND)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.above()
        yield from super().get_renderables()


class Reporter:
    """Where messages and progress of a run go.

    Args:
        quiet: one plain line at the end of a step, even on a terminal. Without it and without a terminal, a step that
            takes longer also says every half minute how far it is.
        console: for tests; default the terminal.
        stderr: keep standard output free.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None, stderr: bool = False) -> None:
        self.console = console or _Console(highlight=False, soft_wrap=True, stderr=stderr)
        self.quiet = quiet
        self.bars = self.console.is_terminal and not quiet

    @classmethod
    def silent(cls) -> Reporter:
        """One that prints nothing."""
        return cls(quiet=True, console=Console(quiet=True))

    @property
    def ascii_only(self) -> bool:
        """Whether to draw without box characters: what reads the output may not know them."""
        return not self.console.is_terminal or self.console.no_color or not self.console.encoding.startswith("utf")

    def say(self, text: str) -> None:
        """Print lines; a terminal gets them broken between words."""
        self.console.print(text, markup=False, soft_wrap=not self.console.is_terminal)

    def table(self, cells: Cells) -> None:
        """Print a table; one wider than the terminal in parts."""
        for part in cells.rich(self.console.width):
            self.console.print(part)

    @contextmanager
    def track(self, title: str, total: int, above: Callable[[], RenderableType] | None = None) -> Iterator[Advance]:
        """A step of `total` units; yields what to call after each.

        Args:
            above: on a terminal, makes what is drawn above the bar and stays there at the end. Called a few times a
                second, from another thread.
        """
        if self.bars:
            yield from self._bar(title, total, above)
        else:
            yield from self._lines(title, total)

    def _bar(self, title: str, total: int, above: Callable[[], RenderableType] | None) -> Iterator[Advance]:
        bars = _BarUnder(above, self.console) if above else Progress(*_columns(), console=self.console)
        with bars as progress:
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


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
