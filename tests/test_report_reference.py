"""The reference on the report: beside the gains over it alone, and why it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from branchtune.cli.main import main
from branchtune.evaluation.references import Reference
from branchtune.report.page.run_data import read_run
from branchtune.report.page.tables import headline_table
from branchtune.run.results import Results
from finished_run import copied, page, run_of


def compared_with(finished: Path, reference: Reference, file: str) -> Path:
    """A copy of the run with gains over `reference`, which its configuration calls `file`."""
    run = copied(finished, f"over-{reference.id}-{reference.metrics['depth']:g}")
    Results.load(run / "results.json").compared_with(reference).save(run / "results.json")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"reference": file}))
    return run


def test_the_reference_stands_beside_gains_over_it_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Results.load(run_of(finished) / "results.json").headline
    before, after = (Reference("r", dict.fromkeys(tasks, value)) for value in (2.0, 3.0))
    run = compared_with(finished, before, "reference.json")
    monkeypatch.chdir(tmp_path)
    before.save("reference.json")
    assert main(["report", str(run), "--quiet"]) == 0
    assert '<th scope="col">reference</th>' in page(run)
    assert "not shown" not in page(run)
    assert "no reference" not in capsys.readouterr().out
    kept = read_run(run)

    after.save("reference.json")
    other = compared_with(finished, after, "reference.json")
    assert "reference" in headline_table([kept]).heading
    assert "reference" in headline_table([read_run(other)]).heading
    assert "reference" not in headline_table([kept, read_run(other)]).heading

    (tmp_path / "elsewhere").mkdir()
    for folder, reason in (
        (tmp_path, "reference.json has changed since the gains were computed: `branchtune evaluate` computes those"),
        (tmp_path / "elsewhere", "reference.json is not in the current folder: make the report in the folder that"),
    ):
        monkeypatch.chdir(folder)
        assert main(["report", str(run), "--quiet"]) == 0
        assert f"no reference beside the gains of tiny: {reason}" in capsys.readouterr().out
        html = page(run)
        assert f"Values of the reference are not shown: {reason}" in html
        assert '<th scope="col">reference</th>' not in html
        assert "relative to the reference <b>r</b>" in html
        assert '<th scope="col">gain %</th>' in html
