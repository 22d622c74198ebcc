"""A hook of mkdocs: what a page links to outside docs/ (raw results, configurations) becomes part of the site."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s#]+)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add every linked file of the repository under `repository/`, as it is."""
    for page in files.documentation_pages():
        for _, link in LINK.findall(Path(page.abs_src_path).read_text(encoding="utf-8")):
            target = _outside(link, page)
            if target and (ROOT / target).is_file() and files.get_file_from_path(_place(target)) is None:
                files.append(File.generated(config, _place(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point the links there; a folder, which has no page, keeps its name only."""
    return LINK.sub(lambda found: _moved(found, page.file), markdown)


def _moved(found: re.Match[str], page: Any) -> str:
    target = _outside(found[2], page)
    if target is None:
        return found[0]
    if not (ROOT / target).is_file():
        return found[1]
    return f"[{found[1]}]({os.path.relpath(_place(target), Path(page.src_uri).parent)})"


def _outside(link: str, page: Any) -> str | None:
    """The path of what a page links to in the repository, None inside docs/."""
    path = os.path.normpath(Path("docs", page.src_uri).parent / link)
    return None if Path(path).parts[0] == "docs" else path


def _place(target: str) -> str:
    # A page of its own would need the links of its own: Markdown is shown as text.
    return f"repository/{target}" + (".txt" if target.endswith(".md") else "")
