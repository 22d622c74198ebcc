"""Processes meet as `torchrun` starts them: the first prepares as long as it likes, then nobody waits for ever."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from branchtune.run import team

LIMIT = timedelta(seconds=5)


def _member(rank: int, port: int, folder: Path) -> None:
    os.environ.update(TORCHELASTIC_RUN_ID="test", MASTER_ADDR="localhost", MASTER_PORT=str(port))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    team.EXCHANGE = LIMIT
    with team.together(torch.device("cpu")) as connect:
        if rank == 0:
            time.sleep(1.5 * LIMIT.total_seconds())  # fits decoders
            (folder / "prepared").touch()
        connect()
        assert (folder / "prepared").exists()
        total = torch.ones(1)
        torch.distributed.all_reduce(total)
        if rank == 0:
            (folder / "lost").touch()
            while not (folder / "noticed").exists():  # hangs
                time.sleep(0.1)
            return
        start = time.monotonic()
        with pytest.raises(RuntimeError, match=r"(?i)time|by peer"):
            torch.distributed.all_reduce(total)
        (folder / "noticed").write_text(f"{float(total)} {time.monotonic() - start}")


@pytest.mark.slow
def test_preparing_may_take_longer_than_an_exchange_of_which_a_lost_process_is_noticed(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_member, (port, tmp_path), 2)
    total, seconds = map(float, (tmp_path / "noticed").read_text().split())
    assert total == 2.0
    assert 0.5 * LIMIT.total_seconds() < seconds < 4 * LIMIT.total_seconds()


def test_alone_nobody_is_waited_for() -> None:
    with team.together(torch.device("cpu")) as connect:
        connect()
        assert not torch.distributed.is_initialized()
