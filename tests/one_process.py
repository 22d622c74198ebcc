"""With `--dist=loadfile`, files whose tests share a long fixture count as one file: one process makes it, once."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling


class TogetherScheduling(LoadFileScheduling):
    """Gives all files named `test_comparison*.py`, which use the fixture `compared`, to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        head, together, _ = file.partition("test_comparison")
        return head + together
