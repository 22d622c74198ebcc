"""Files and folders are written whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from branchtune.atomic import (
    many_files,
    other_work,
    replace_directory,
    replace_file,
    write_bytes,
    write_json,
    write_text,
)
from branchtune.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A disk that takes the beginning of a file and then no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_text_json_and_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "größer\n")
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "ß"})
    write_bytes(tmp_path / "a.bin", b"\x00\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "größer\n".encode()
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith('{\n  "b": [')
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["a.bin", "a.json", "new"]


def test_what_json_cannot_hold_is_refused_before_writing(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    for value in (float("nan"), object()):
        with pytest.raises((TypeError, ValueError)):
            write_json(tmp_path / "a.json", {"x": value})
    assert (tmp_path / "a.json").read_text() == "1\n"


@pytest.mark.parametrize("call", ["write_bytes", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": True})
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, call) if call == "write_bytes" else (os, call)), full_disk)
        with pytest.raises(UserError, match=r"cannot write .*a\.json: No space left on device; free some space") as e:
            write_json(path, {"new": True})
    assert "\n" not in str(e.value)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("how", ["text", "torch", "safetensors"])
def test_a_write_that_stops_half_way(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    weights = {"w": torch.zeros(200_000)}
    write = {
        "text": lambda new: new.write_text("x" * 300_000),
        "torch": lambda new: torch.save(weights, new),
        "safetensors": lambda new: save_file(weights, new),
    }[how]
    with file_size_limit(100_000), pytest.raises(UserError, match=r"cannot write .*a: "), replace_file(path) as new:
        write(new)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_an_error_that_is_no_failed_write_passes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replace_file(tmp_path / "a") as new:
        new.write_text(str(1 / 0))
    with pytest.raises(ZeroDivisionError), replace_directory(tmp_path / "b") as folder:
        (folder / "x").write_text(str(1 / 0))
    assert names(tmp_path) == []


def test_what_fails_beside_the_writing_keeps_its_own_words(tmp_path: Path) -> None:
    cause = KeyError("why")
    for replace in (replace_file, replace_directory):
        with pytest.raises(FileNotFoundError, match="calibration") as e, replace(tmp_path / "a"), other_work():
            raise FileNotFoundError(errno.ENOENT, "gone", "calibration.txt") from cause
        assert e.value.__cause__ is cause
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Permission denied; choose a folder that you can write to"):
            write_text(tmp_path / "a", "text")
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_bytes", read_only)
    with pytest.raises(UserError, match="Read-only file system; choose a folder that you can write to"):
        write_text(tmp_path / "a", "text")


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "text")
    for write in (lambda p: write_text(p, "b"), lambda p: replace_directory(p).__enter__()):
        with pytest.raises(UserError, match=r"cannot write .*a/b: "):
            write(tmp_path / "a" / "b")
    with pytest.raises(UserError, match=r"cannot write the folder .*a: a file has that name"):
        replace_directory(tmp_path / "a").__enter__()


def test_a_link_keeps_pointing_to_what_was_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "real" / "a", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").symlink_to(tmp_path / "real" / "a")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "real" / "a").read_text() == "new"
    with replace_directory(tmp_path / "link") as folder:
        (folder / "b").write_text("b")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["b"]


def test_a_folder_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    for name in ("first", "second"):
        with replace_directory(path) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / name).write_text(name)
        assert names(path / "sub") == [name]
        assert names(path.parent) == ["model"]


@pytest.mark.parametrize("failing_rename", [0, 1])
def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_rename: int
) -> None:
    path = tmp_path / "model"
    with replace_directory(path) as folder:
        (folder / "old").write_text("old")
    rename, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing_rename + 1:
            full_disk()
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match="No space left"), replace_directory(path) as folder:
        (folder / "new").write_text("new")
    assert names(path) == ["old"]
    assert names(tmp_path) == ["model"]


KILLED = """
import os, sys
from pathlib import Path
from branchtune import atomic

path, point = Path(sys.argv[1]), sys.argv[2]
rename, renames = os.replace, []

def replace(source, target):
    if point == f"before rename {len(renames)}":
        os._exit(9)
    renames.append(target)
    rename(source, target)

os.replace = replace
with atomic.replace_directory(path / "model") as folder:
    (folder / "new").write_text("new")
    if point == "writing a folder":
        os._exit(9)
with atomic.replace_file(path / "file") as file:
    file.write_text("half")
    os._exit(9)
"""


@pytest.mark.parametrize("point", ["writing a folder", "before rename 0", "before rename 1", "writing a file"])
def test_a_killed_process_leaves_old_or_new_and_the_next_writer_cleans_up(tmp_path: Path, point: str) -> None:
    with replace_directory(tmp_path / "model") as folder:
        (folder / "old").write_text("old")
    write_text(tmp_path / "file", "old")
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path, point], check=False).returncode == 9
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(ZeroDivisionError), replace_directory(tmp_path / "model"):
        raise ZeroDivisionError
    assert names(tmp_path / "model") == (["new"] if point == "writing a file" else ["old"])
    write_text(tmp_path / "file", "new")
    with replace_directory(tmp_path / "model") as folder:
        (folder / "newest").write_text("newest")
    assert names(tmp_path) == ["file", "model"]
    assert names(tmp_path / "model") == ["newest"]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    with replace_file(tmp_path / "a") as one, replace_file(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"
    assert names(tmp_path) == ["a"]


def test_among_many_files_each_write_does_not_look_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".a.99999999.01234567.partial").write_text("of a process that was killed")
    listed: list[Path] = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: listed.append(folder) or iterdir(folder))
    with many_files(tmp_path):
        for name in "abc":
            write_text(tmp_path / name, name)
        write_text(tmp_path / "other" / "a", "a")
    assert listed == [tmp_path, tmp_path / "other"]
    assert names(tmp_path) == ["a", "b", "c", "other"]
    listed.clear()
    write_text(tmp_path / "d", "d")
    assert listed == [tmp_path]


def test_the_current_folder_and_mounts_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose current folder is another's place cannot write by relative paths; a mount cannot be renamed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds, the current folder, and cannot be replaced as a whole: choose another"):
        replace_directory(".").__enter__()
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mounted")
    with pytest.raises(UserError, match="mounted is a mount point, and cannot be replaced"):
        replace_directory("mounted").__enter__()
    with replace_directory(Path("mounted", "model")) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "mounted") == ["model"]
