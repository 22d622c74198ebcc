"""The table that a terminal shows while a model trains, and what is left of it."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

import branchtune as bt
from branchtune.progress import Reporter
from branchtune.run.fit import fit
from branchtune.settings import Settings
from branchtune.training.live_table import training_table
from tiny_run import write_config

TASKS = {"depth": bt.Depth("depth"), "a": bt.SemanticSegmentation("a", num_classes=3), "edge": bt.Edges("edge")}
ROWS = [
    {"epoch": epoch, "task": task, "val_loss": loss, TASKS[task].headline: value}
    for epoch, losses in enumerate([(2.0, 0.5), (1.5, 0.4), (1.75, 0.3)])
    for task, loss, value in (("depth", losses[0], losses[0] / 2), ("a", losses[1], 1 - losses[1]))
]


def printed(losses: dict[str, float], ascii_only: bool) -> list[list[str]]:
    text = io.StringIO()
    Console(file=text, width=80).print(training_table(TASKS, losses, ROWS, ascii_only))
    return [line.split() for line in text.getvalue().splitlines() if line.strip()]


def test_losses_metric_best_and_trend_of_every_task() -> None:
    lines = printed({"depth": 1.25, "a": 0.75}, ascii_only=False)
    assert lines[0] == ["task", "loss", "val", "loss", "metric", "now", "best", "(epoch)", "trend", "↑"]
    assert lines[2:] == [
        ["depth", "1.250", "1.750", "rmse", "↓", "0.875", "0.750", "(2)", "▁█▅"],
        ["a", "0.750", "0.300", "miou", "↑", "0.700", "0.700", "(3)", "▁▅█"],
        ["edge", "-", "-", "best_f_dt", "↑", "-", "-"],
    ]


def test_a_trend_in_ascii_and_a_metric_without_label() -> None:
    assert [line[-1] for line in printed({}, ascii_only=True)[2:4]] == ["+-", "++"]
    nothing = [{"epoch": 0, "task": "a", "val_loss": math.nan, "miou": math.nan}]
    table = training_table(TASKS, {}, nothing, ascii_only=False)
    assert [list(column.cells)[1] for column in table.columns] == ["a", "-", "-", "miou ↑", "-", "-", ""]


def test_the_finished_table_stays_on_a_terminal_of_80_columns(tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, highlight=False, color_system=None)
    settings = Settings.load(write_config(tmp_path), ["--method=decoders", "--trainer.max_epochs=2"])
    fit(settings, Reporter(console=console))
    after = text.getvalue().rpartition("best (epoch)")[2]
    rows = [line.split() for line in after.splitlines()]
    for task in settings.config.tasks:
        (row,) = [row for row in rows if row[:1] == [task]]
        assert row[-2] in ("(1)", "(2)")
        assert len(row[-1]) == 2
    bar = next(line for line in after.splitlines() if "train tiny" in line)
    assert "4/4" in bar or "6/6" in bar
    assert "left 0:00:00" in bar
    assert max(map(len, after.partition("evaluate")[0].splitlines())) <= 80


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (True, True)])
def test_without_a_terminal_or_quiet_there_is_a_line(terminal: bool, quiet: bool) -> None:
    text = io.StringIO()
    reporter = Reporter(quiet, Console(file=text, force_terminal=terminal, width=80, highlight=False))
    with reporter.track("train", 1, lambda: pytest.fail("drawn")) as advance:
        advance()
    assert text.getvalue() == "train: 1 of 1 in 0.0 s\n"


def test_the_other_processes_draw_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter.silent()
    with reporter.track("train", 1, lambda: pytest.fail("drawn")) as advance:
        advance()
    assert capsys.readouterr().out == ""
