"""report.html: what it says of a run and of several, and what it does where something is missing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from branchtune.cli.main import main
from branchtune.data.nyud import NYUDFiles
from branchtune.pictures.colour import class_colours
from branchtune.progress import Reporter
from branchtune.report.page.curves import run_curves
from branchtune.report.page.data_words import evaluated_each
from branchtune.report.page.gallery import ClassKey, make_gallery
from branchtune.report.page.pages import run_page
from branchtune.report.page.run_data import read_run
from branchtune.report.page.tables import headline_table
from branchtune.report.page.tree_svg import LETTER, THICK, tree_drawing
from branchtune.run.results import Results
from branchtune.tables.numbers import number
from finished_run import changed, copied, page, run_of
from many_tasks import names_of, noisy_gallery, with_tasks

SCENES = Path(__file__).parents[1] / "results" / "scenes"


def test_fit_ends_with_a_report_that_needs_nothing_else(finished: Path) -> None:
    html = page(run_of(finished))
    assert len(html.encode()) < 5e6
    assert "http://" not in html
    assert "https://" not in html
    shown = re.sub(r'base64,[^"]*', "", html.partition("<main>")[2])
    assert not re.search(r"\b(nan|NaN|inf|None|undefined)\b", shown)
    titles = ("Results", "Tree", "Affinity", "Cost", "Learning curves", "Gradient conflict", "Gallery")
    assert all(f">{title}</h2>" in html for title in titles)
    assert "No gallery" not in html
    assert "No record" not in html


def test_the_table_has_the_numbers_of_the_results(finished: Path) -> None:
    run = read_run(run_of(finished))
    results = Results.load(run.path / "results.json")
    cells = headline_table([run])
    assert [row[0] for row in cells.body] == list(results.headline)
    assert [row[-1] for row in cells.body] == [number(value) for value in results.heads.values()]
    html = page(run.path)
    for count in results.parameters.values():
        assert count == 0 or f"{count:,}" in html or count == results.parameters["frozen"]


def test_the_results_say_which_images_they_are_computed_on(finished: Path) -> None:
    html = page(run_of(finished))
    assert "The headline metric of every task, on 2 images of split “val”." in html
    assert "<dd>nyud; 4 train, 2 val images</dd>" in html


def test_runs_computed_on_different_images_are_told_apart() -> None:
    images = [{"train": 9, "val": 2, "test": 5}, {"train": 9, "val": 2}, {"val": 2}, {}]
    assert evaluated_each(images[:1], ["this run"]) == "5 images of split “test”"
    assert evaluated_each(images[1:3], ["b", "c"]) == "2 images of split “val”"
    assert evaluated_each(images[3:], ["d"]) == ""
    assert evaluated_each(images, ["a", "b", "c", "d"]) == (
        "5 images of split “test” (a) and 2 images of split “val” (b, c) and images not counted (d)"
    )


def test_metrics_keep_their_names_in_the_table_of_the_curves(finished: Path) -> None:
    table = run_curves(read_run(run_of(finished))).table
    assert table is not None
    names = [row[1] for row in table.body if row[0] == "normals"]
    assert names == ["training loss", "validation loss", "mean_angle"]


@pytest.mark.parametrize("method", ["random", "anti"])
def test_the_dendrogram_of_a_control_is_that_of_the_planned_tree(finished: Path, method: str) -> None:
    assert "dendrogram that the plan cuts" in page(run_of(finished))
    run = copied(finished, f"control-{method}")
    changed(run, method=method)
    assert main(["report", str(run), "--quiet"]) == 0
    html = page(run)
    assert "dendrogram of the planned tree; this run’s tree is a control" in html
    assert "as a planned tree takes it (this run’s tree is a control)" in html
    assert "that the plan cuts" not in html


def test_the_dendrogram_beside_a_tree_by_hand_is_not_its_own(finished: Path) -> None:
    run = copied(finished, "by-hand")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["tree"] = {"levels": [[list(config["tasks"])]] * len(Results.load(run / "results.json").groups)}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["report", str(run), "--quiet"]) == 0
    html = page(run)
    assert "dendrogram of the planned tree; this run’s tree was given by hand" in html
    assert "as a planned tree takes it (this run’s tree was given by hand)" in html


@pytest.mark.parametrize(
    ("task", "reason"),
    [("LossFails", "ZeroDivisionError: no pixel is valid"), ("PredictionFails", "KeyError: 'scale'")],
)
def test_a_task_of_a_users_own_that_raises_leaves_out_the_gallery_alone(
    finished: Path, task: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished, f"raises-{task}")
    for file in (run / "config.yaml", run / "model" / "adapter_config.json"):
        file.write_text(file.read_text().replace("branchtune.Depth", f"own_tasks.{task}"))
    assert main(["report", str(run), "--quiet"]) == 0
    assert f"no gallery: {reason}\n" in capsys.readouterr().out
    html = page(run)
    assert f"No gallery: {reason.replace(chr(39), '&#39;')}</p>" in html
    assert "Gradient conflict" in html


def test_the_drawing_has_the_widths_of_the_counts(finished: Path) -> None:
    run = read_run(run_of(finished))
    costs = {node.key: cost.parameters for node, cost in run.cost.nodes}
    most = max(costs.values())
    nodes = re.findall(r'<g id="tree-\d+".*?<rect[^>]*height="([\d.]+)".*?</g>', page(run.path))
    assert sorted(map(float, nodes)) == pytest.approx(sorted(THICK * c / most for c in costs.values()), abs=0.01)
    assert sum(run.decoders.values()) == run.results.parameters["decoders"]


def test_a_tip_of_many_tasks_stays_inside_the_drawing(finished: Path) -> None:
    svg = ElementTree.fromstring(str(tree_drawing(with_tasks(read_run(run_of(finished)), 16), "tree")))
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    tips = [group for group in svg.iter("g") if group.get("class") == "tip"]
    assert tips
    for tip in tips:
        box, *lines = tip
        x, y, wide, tall = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + wide <= width
        assert 0 <= y < y + tall <= height
        texts = [str(line.text) for line in lines]
        assert max(map(len, texts)) * LETTER <= wide
        assert all(name in " ".join(texts) for name in names_of(16))


def test_a_page_of_sixteen_tasks_stays_below_five_megabytes(finished: Path) -> None:
    html = run_page(with_tasks(read_run(run_of(finished)), 16), noisy_gallery(16, 448, 448))
    assert html.count("data:image/jpeg") == 6 * (1 + 3 * 16)
    assert 3e6 < len(html.encode()) < 5e6


@pytest.mark.parametrize("count", [48, 150])
def test_a_page_of_many_tasks_stays_below_five_megabytes(finished: Path, count: int) -> None:
    run = with_tasks(read_run(run_of(finished)), count, epochs_of_conflict=1)
    html = run_page(run, noisy_gallery(count, 64, 64))
    assert 1e6 < len(html.encode()) < 5e6
    said = " ".join(html.split())
    cases = html.count('<article class="case">')
    assert cases >= 2
    assert "To keep this page below 5 MB, " in said
    assert cases == 6 or f" {cases // 2} of 3 best and {cases // 2} of 3 worst images are shown." in said
    assert "all are in affinity.json" in said
    assert "all are in conflict.csv" in said
    assert html.count('<figure class="heat-picture">') == (4 if count < 60 else 5)


def test_a_page_of_more_tasks_than_pictures_fit_into_says_so(finished: Path) -> None:
    run = with_tasks(read_run(run_of(finished)), 16, epochs_of_conflict=1)
    html = run_page(run, noisy_gallery(900, 32, 32))
    assert "No gallery: the pictures of 900 tasks are too many for a page of 5 MB." in html
    assert len(html.encode()) < 5e6


def test_the_best_case_comes_before_the_worst(finished: Path) -> None:
    gallery = make_gallery(read_run(run_of(finished)), Reporter.silent())
    assert gallery.looked_at == 2
    assert [len(gallery.best), len(gallery.worst)] == [1, 1]
    assert gallery.best[0].score <= 1 <= gallery.worst[0].score
    assert set(gallery.best[0].panels) == {"semseg", "depth", "normals", "edge"}


def test_the_colours_of_classes_have_names_where_the_data_have_them(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(run_of(finished))
    numbered = make_gallery(run, Reporter.silent()).classes
    monkeypatch.setattr(NYUDFiles, "class_names", {"semseg": [f"class no {index}" for index in range(39)]})
    named = make_gallery(run, Reporter.silent()).classes
    assert list(numbered) == list(named) == ["semseg"]
    assert [f"class no {key.name}" for key in numbered["semseg"]] == [key.name for key in named["semseg"]]
    assert '<span class="swatch" style="background: rgb(' in page(run.path)


def test_a_predicted_class_is_in_the_key_whatever_its_number(finished: Path) -> None:
    tasks = "--tasks={semseg: {class_path: own_tasks.ManyClasses, init_args: {name: semseg}}}"
    arguments = [tasks, "--method=decoders", "--trainer.max_epochs=1", "--name=many-classes", "--quiet"]
    assert main(["fit", str(finished), *arguments]) == 0
    keys = make_gallery(read_run(run_of(finished, "many-classes")), Reporter.silent()).classes["semseg"]
    assert keys[-1] == ClassKey("rgb({}, {}, {})".format(*class_colours(300)[255]), "255")


def test_a_finished_run_keeps_its_report_and_gets_it_again_when_it_is_gone(finished: Path) -> None:
    report = run_of(finished) / "report.html"
    before = report.stat().st_mtime_ns
    assert main(["fit", str(finished), "--quiet"]) == 0
    assert report.stat().st_mtime_ns == before
    report.unlink()
    assert main(["fit", str(finished), "--quiet"]) == 0
    assert report.stat().st_size > 10_000


def test_a_failure_is_a_warning_and_the_run_ends_well(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(finished)
    text = page(run)
    (run / "report.html").unlink()

    def fail(*args: object) -> None:
        raise PermissionError(13, "Permission denied", "report.html")

    monkeypatch.setattr("branchtune.report.page.write.write_text", fail)
    assert main(["fit", str(finished), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "warning: no report ([Errno 13] Permission denied: 'report.html')" in out
    assert f"`branchtune report {run}` makes it again" in out
    (run / "report.html").write_text(text, encoding="utf-8")


def test_a_run_whose_data_are_gone_has_a_report_without_gallery(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished, "moved")
    config = run / "config.yaml"
    config.write_text(re.sub(r"root: .*", "root: /nowhere/nyud", config.read_text()))
    assert main(["report", str(run), "--quiet"]) == 0
    assert "no gallery: " in capsys.readouterr().out
    html = page(run)
    assert "No gallery: " in html
    assert "/nowhere/nyud" in html
    assert "data:image/" not in html


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("results.json", None, "is not finished"),
        ("config.yaml", None, "is no run directory"),
        ("model", None, "has no model"),
        ("model/decoders.safetensors", b"damaged", "decoders.safetensors is missing or damaged"),
        ("results.json", b"{", "results.json is damaged"),
        ("affinity.json", b"{", "affinity.json"),
        ("metrics.csv", b"epoch,task\n0\n", "metrics.csv is damaged"),
        ("conflict.csv", b"epoch,level\n0,1\n", "conflict.csv is damaged"),
    ],
)
def test_what_is_wrong_with_a_run_is_named(
    finished: Path, capsys: pytest.CaptureFixture[str], file: str, content: bytes | None, expected: str
) -> None:
    run = copied(finished, f"wrong-{file.replace('/', '-')}-{content is None}")
    path = run / file
    if content is not None:
        path.write_bytes(content)
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main(["report", str(run), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_several_runs_stand_beside_each_other(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = copied(finished, "other")
    gains = dict.fromkeys(Results.load(other / "results.json").headline, 1.5)
    changed(other, name="other", reference="r", gains=gains, delta_m=1.5)
    (other / "conflict.csv").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run_of(finished)), str(other), "--quiet"]) == 0
    html = page(tmp_path)
    assert html.count('<th scope="col">other</th>') >= 2
    assert html.count('aria-label="drawing of the tree') == 2
    assert "+1.50" in html
    assert '<th scope="row">backbone</th><td>test_vit</td><td>test_vit</td>' in html
    assert '<th scope="row">image size</th><td>32×32</td><td>32×32</td>' in html
    assert '<th scope="row">method</th><td>branched</td><td>branched</td>' in html
    assert "on 2 images of split “val”." in html
    assert "Affinity, and best and worst cases, are in each run’s own report." in html
    assert main(["report", str(other), str(SCENES), "--quiet"]) == 2


def test_runs_with_other_headlines_have_the_same_metric_in_a_row(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, other = run_of(finished), copied(finished, "other-headline")
    results = Results.load(other / "results.json")
    changed(other, name="other-headline", headline=results.headline | {"depth": "delta1"})
    row = next(row for row in headline_table([read_run(first), read_run(other)]).body if row[0] == "depth")
    assert row[1:] == ["rmse ↓", *[number(results.metrics["depth"]["rmse"])] * 2]
    assert main(["report", str(first), str(other), "--quiet", f"--out={tmp_path / 'both.html'}"]) == 0
    changed(other, metrics=results.metrics | {"depth": {"delta1": 0.5, "loss": 1.0}})
    capsys.readouterr()
    assert main(["report", str(first), str(other), "--quiet", f"--out={tmp_path / 'both.html'}"]) == 2
    error = capsys.readouterr().err
    assert "run 'other-headline' has no rmse of 'depth', by which the run beside it is judged: give runs of" in error
    assert error.count("\n") == 1
