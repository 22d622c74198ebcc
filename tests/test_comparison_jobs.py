"""The order in which a comparison's processes are given their runs."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from branchtune.comparison import jobs
from branchtune.comparison.jobs import Job, train_all
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from tiny_run import write_config


class Pool:
    """Instead of processes: notes the run and the one it reuses, and is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.given: list[str] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Any, text: str, reuse: Path | None, workers: int) -> Future[float]:
        name = Settings.parse(text).config.name
        assert reuse is None or reuse.name in self.given, f"{name} before the run that it waits for"
        self.given.append(name)
        future: Future[float] = Future()
        if name == "broken":
            future.set_exception(UserError("no such file"))
        else:
            future.set_result(1.0)
        return future


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(jobs, "ProcessPoolExecutor", lambda *args, **kwargs: pool)
    monkeypatch.setattr(Workbench, "check", lambda self, plans: None)
    return pool


def runs(folder: Path, *names: str) -> list[Job]:
    settings = Settings.load(write_config(folder))
    return [Job(settings.but(name=name)) for name in names]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_who_reuses_waits_and_the_others_keep_their_order(tmp_path: Path, pool: Pool, workers: int) -> None:
    leader, *followers, other = runs(tmp_path, "leader", "a", "b", "other")
    train_all([leader, *(replace(job, reuse=leader.path) for job in followers), other], workers, Reporter(quiet=True))
    assert sorted(pool.given) == ["a", "b", "leader", "other"]
    assert pool.given[:2] == (["leader", "other"] if workers > 1 else ["leader", "a"])


def test_a_run_that_is_given_twice_is_trained_once(tmp_path: Path, pool: Pool) -> None:
    train_all([*runs(tmp_path, "one", "two", "one")], 2, Reporter(quiet=True))
    assert pool.given == ["one", "two"]


def test_the_run_that_fails_is_named_and_no_other_begins(tmp_path: Path, pool: Pool) -> None:
    with pytest.raises(UserError, match=r"^broken: no such file$"):
        train_all(runs(tmp_path, "broken", "later"), 1, Reporter(quiet=True))
    assert pool.given == ["broken"]
