"""A hook of mkdocs: what a page links to outside docs/ (raw results, configurations) becomes part of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(\.\./([^)\s#]+)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add every linked file of the repository under `repository/`, as it is."""
    for page in files.documentation_pages():
        for target in LINK.findall(Path(page.abs_src_path).read_text(encoding="utf-8")):
            path = ROOT / target
            if path.is_file() and files.get_file_from_path(_place(target)) is None:
                files.append(File.generated(config, _place(target), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point the links there; a folder, which has no page, keeps its name only."""
    return re.sub(r"\[([^\]]*)\]\(\.\./([^)\s#]+)\)", _moved, markdown)


def _moved(found: re.Match[str]) -> str:
    return f"[{found[1]}]({_place(found[2])})" if (ROOT / found[2]).is_file() else found[1]


def _place(target: str) -> str:
    # A page of its own would need the links of its own: Markdown is shown as text.
    return f"repository/{target}" + (".txt" if target.endswith(".md") else "")
