"""The report of a committed comparison whose runs are not there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from branchtune.cli.main import main
from branchtune.comparison.result import Comparison
from branchtune.comparison.tables import tables
from branchtune.settings import resolved
from finished_run import page

SCENES = Path(__file__).parents[1] / "results" / "scenes"


def test_a_comparison_has_its_tables(tmp_path: Path) -> None:
    shutil.copy(SCENES / "comparison.json", tmp_path)
    assert main(["report", str(tmp_path), "--quiet", f"--out={tmp_path / 'out.html'}"]) == 0
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    for cells in tables(Comparison.load(SCENES / "comparison.json")):
        for row in cells.body:
            assert all(f">{text.replace('&', '&amp;')}</t" in html for text in row)
    assert html.count("<circle") == 18
    assert "nothing to draw" in html
    assert "No gallery: the runs are not in the folder of the comparison." in html
    assert ">{depth normals semseg} {edge parts saliency}</td>" in html
    assert '<th scope="col">ms</th>' in html


def test_a_comparison_says_what_it_holds_for(tmp_path: Path) -> None:
    content = json.loads((SCENES / "comparison.json").read_text())
    last = content["runs"]["decoders"][-1]
    last["hardware"] = "another machine"
    last["versions"] |= {"timm": "0.0.1", "commit": "0123456789"}
    content["notes"] = ["A <sentence> of its own."]
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    assert main(["report", str(tmp_path), "--quiet"]) == 0
    html = page(tmp_path)
    assert '<p class="note">A &lt;sentence&gt; of its own.</p>' in html
    train, val, test = (resolved(content["config"])[f"data.{split}_size"] for split in ("train", "val", "test"))
    assert "<dt>backbone</dt><dd>scenes_swin</dd>" in html
    assert "<dt>image size</dt><dd>128×128</dd>" in html
    assert f"<dt>data</dt><dd>scenes; {train} train, {val} val, {test} test images</dd>" in html
    assert f"Metrics are computed on {test} images of split “test”." in html
    assert " or another machine, " in html
    assert " or 0.0.1, " in html
    assert re.search(r" at commits? [^<]*0123456789</dd>", html)
