"""The file and the page of benchmark results: what a run replaces, what it keeps, and what an interrupted one skips."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks import __main__ as command
from benchmarks import page, profile
from benchmarks import provenance as origins
from benchmarks.bench import Bench
from benchmarks.explained import unexplained
from benchmarks.provenance import provenance
from benchmarks.results import RESULTS, Results

GROUPS = ("first", "second")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two groups, what each does, and how often each has run."""
    found: dict[str, Any] = {"ran": [], "fails": set()}

    def group(name: str) -> SimpleNamespace:
        def measure(bench: Bench) -> None:
            found["ran"].append(name)
            if not bench.wants("sums"):
                return
            calls = {"long": lambda: torch.ones(2000).sum(), "short": lambda: torch.ones(2).sum()}
            compared = bench.compare("sums", calls, base="short")
            bench.goal(f"{name}: long over short", 0.0, 2.0, of=compared, sides=("long", "short"))
            if name in found["fails"]:
                raise ValueError(f"{name} broke")

        return SimpleNamespace(measure=measure)

    monkeypatch.setattr(command, "GROUPS", GROUPS)
    for name in GROUPS:
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", group(name))
    monkeypatch.setattr(command, "commit", lambda: "abc")
    for module in (command, profile):
        monkeypatch.setattr(module, "provenance", lambda *args: provenance(*args) | {"commit": "abc"})
    return found


def run(out: Path, *arguments: str) -> int:
    return command.main([*arguments, "--device", "cpu", "--rounds", "2", "--out", str(out)])


def test_a_run_of_one_group_leaves_the_others_as_they_were(tmp_path: Path, runs: dict[str, Any]) -> None:
    out = tmp_path / "cpu.json"
    assert run(out, *GROUPS) == 0
    before = Results(out).groups()
    assert run(out, "second") == 0
    after = Results(out).groups()
    assert after["first"] == before["first"]
    assert list(after) == list(GROUPS)
    entry = after["second"]
    assert entry["rounds"] == 2
    assert {"peft", "torch", "onnxruntime"} <= set(entry["versions"])
    assert {"cores", "memory_bytes", "system", "load_average"} <= set(entry["machine"])
    assert [measured["name"] for measured in entry["measured"]] == ["long", "short"]


def test_a_group_that_fails_is_recorded_and_the_next_one_runs(
    tmp_path: Path, runs: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cpu.json"
    runs["fails"].add("first")
    assert run(out, *GROUPS) == 1
    groups = Results(out).groups()
    assert "first broke" in groups["first"]["error"]
    assert len(groups["first"]["goals"]) == 1
    assert groups["second"]["error"] is None
    assert "FAILED: first" in capsys.readouterr().err


def test_resuming_skips_what_was_done_at_this_commit(
    tmp_path: Path, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cpu.json"
    runs["fails"].add("second")
    run(out, *GROUPS)
    assert run(out, *GROUPS, "--resume") == 1
    assert runs["ran"] == ["first", "second", "second"]
    monkeypatch.setattr(command, "commit", lambda: "def")
    run(out, *GROUPS, "--resume")
    assert runs["ran"][3:] == ["first", "second"]
    dirty = Results(out)
    dirty.put("first", dirty.groups()["first"] | {"commit": "def-dirty"})
    assert not dirty.done("first", "def-dirty", 2)


def test_the_commit_is_the_last_that_changed_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(*files: str) -> str:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(file)
        git("add", "."), git("commit", "-m", "more")
        return git("rev-parse", "--short=12", "HEAD")

    monkeypatch.setattr(origins, "ROOT", tmp_path)
    assert origins.commit() is None
    git("init")
    measured = commit("src/a.py", "benchmarks/b.py", "configs/c.yaml")
    assert origins.commit() == measured
    assert commit("benchmarks/results/cpu.json", "docs/d.md") != measured
    assert origins.commit() == measured
    (tmp_path / "benchmarks" / "b.py").write_text("other")
    assert origins.commit() == f"{measured}-dirty"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["third"], "unknown group 'third'"),
        (["--rounds", "1"], "at least 2 rounds"),
        (["--small"], "--small needs --out"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_a_miss_is_profiled_and_the_page_links_it(tmp_path: Path, runs: dict[str, Any]) -> None:
    out = tmp_path / "cpu.json"
    run(out, "first")
    assert "MISS, no profile" in str(page.page(tmp_path))
    assert profile.main(["--device", "cpu", "--results", str(out)]) == 0
    link = re.search(r"\[MISS\]\((.+?)\)", str(page.page(tmp_path)))
    assert link is not None
    text = (tmp_path / link[1]).read_text(encoding="utf-8")
    head = text.split("\n\n")[0].splitlines()
    assert [line.split(": ")[0] for line in head] == ["goal", "commit", "date", "hardware", "versions"]
    assert head[:2] == ["goal: first: long over short, at most 0; measured 2, MISS", "commit: abc"]
    assert "aten::ones" in text
    assert text.index("long\n====") < text.index("short\n=====")
    with pytest.raises(SystemExit):
        profile.main(["no such goal", "--device", "cpu", "--results", str(out)])


def test_a_profile_of_another_commit_is_not_linked(
    tmp_path: Path, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cpu.json"
    run(out, "first")
    monkeypatch.setattr(profile, "provenance", lambda *args: provenance(*args) | {"commit": "abcd"})
    assert profile.main(["--device", "cpu", "--results", str(out)]) == 0
    assert "MISS, no profile" in str(page.page(tmp_path))
    assert "cpu: not met, and without a profile at abc: first: long over short" in list(unexplained(out))


def test_what_is_unclear_is_profiled_too(tmp_path: Path, runs: dict[str, Any]) -> None:
    out = tmp_path / "cpu.json"
    run(out, "first")
    entry = Results(out).groups()["first"]
    entry["goals"][0] |= {"low": -1.0, "high": 3.0}
    Results(out).put("first", entry)
    assert "| unclear |" in str(page.page(tmp_path))
    assert profile.main(["--device", "cpu", "--results", str(out)]) == 0
    assert "[unclear](profiles/cpu/first-long-over-short.txt)" in str(page.page(tmp_path))
    assert [line.split(":")[1] for line in unexplained(out)] == [" explanations.yaml does not say why this is not met"]
    entry["goals"][0] |= {"value": -0.5}
    Results(out).put("first", entry)
    assert list(unexplained(out)) == []


def test_a_miss_needs_a_sentence(tmp_path: Path, runs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    out, name = tmp_path / "cpu.json", "first: long over short"
    run(out, "first")
    unsaid = f"cpu: explanations.yaml does not say why this is not met: {name}"
    assert profile.main(["--device", "cpu", "--results", str(out)]) == 0
    assert unsaid in capsys.readouterr().out
    assert list(unexplained(out)) == [unsaid]
    assert f"- {name}: not explained yet" in str(page.page(tmp_path))
    (tmp_path / "explanations.yaml").write_text(f'cpu: {{"{name}": more numbers, "gone": it was}}\n')
    assert list(unexplained(out)) == ["cpu: explanations.yaml explains what is no goal: gone"]
    assert f"- {name}: more numbers" in str(page.page(tmp_path))


def test_a_sentence_that_several_share_is_said_once(tmp_path: Path, runs: dict[str, Any]) -> None:
    out = tmp_path / "cpu.json"
    run(out, "first")
    entry = Results(out).groups()["first"]
    others = [{"name": name} for name in ("first: wide over narrow", "first: old over new", "second")]
    entry["goals"] += [entry["goals"][0] | other for other in others]
    Results(out).put("first", entry)
    said = {"first: long over short": "rank", "first: wide over narrow": "rank", "first: old over new": "age"}
    (tmp_path / "explanations.yaml").write_text(yaml.safe_dump({"cpu": said}))
    lines = [line for line in str(page.page(tmp_path)).splitlines() if line.startswith("- ")]
    expected = ["first (long over short; wide over narrow): rank", "first: old over new: age"]
    assert lines == [f"- {line}" for line in (*expected, "second: not explained yet")]


def test_a_counted_miss_needs_the_sentence_alone(tmp_path: Path, runs: dict[str, Any]) -> None:
    out = tmp_path / "cpu.json"
    run(out, "first")
    entry = Results(out).groups()["first"]
    entry["goals"][0] |= {"what": None, "sides": []}
    Results(out).put("first", entry)
    assert [line.split(":")[1] for line in unexplained(out)] == [" explanations.yaml does not say why this is not met"]
    assert "| MISS |" in str(page.page(tmp_path))


def test_the_page_has_what_every_way_holds(tmp_path: Path, runs: dict[str, Any]) -> None:
    out = tmp_path / "cpu.json"
    run(out, "first")
    entry = Results(out).groups()["first"]
    entry["measured"] += [
        {"what": "step", "name": "peer", "median": 2.5},
        {"what": "step", "name": "peer", "held_bytes": 3 * 2**20, "held_over_ours": 1.5},
    ]
    Results(out).put("first", entry)
    assert "| step | peer | 2.50 | 3 | 1.50 |" in str(page.page(tmp_path))


def test_every_committed_miss_is_explained() -> None:
    assert [line for path in RESULTS.glob("*.json") for line in unexplained(path)] == []


def test_the_page_of_results_is_not_stale() -> None:
    path = RESULTS / "README.md"
    assert page.page() == (path.read_text(encoding="utf-8") if path.exists() else None), "python -m benchmarks.page"


def test_committed_results_are_whole() -> None:
    for path in RESULTS.glob("*.json"):
        groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
        assert set(groups) == set(command.GROUPS), path.name
        commits = {group: entry["commit"] for group, entry in groups.items()}
        assert not [group for group, at in commits.items() if at is None or at.endswith("-dirty")], path.name
        assert not any(entry["small"] or entry["error"] for entry in groups.values()), path.name
