"""Every public name says what it is, and what each of its arguments is."""

from __future__ import annotations

import importlib
import inspect

import pytest
from docstring_parser import DocstringStyle, parse

from project_scripts import script


@pytest.mark.parametrize("name", script("docs_names").listed())
def test_a_public_name_describes_its_arguments(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    public = getattr(importlib.import_module(module), attribute)
    texts = [part.__doc__ or "" for part in (inspect.getmro(public) if inspect.isclass(public) else [public])]
    assert texts[0]
    entries = [entry.arg_name for text in texts for entry in parse(text, DocstringStyle.GOOGLE).params]
    described = {argument.strip() for entry in entries for argument in entry.split(",")}
    parameters = inspect.signature(public.__init__ if inspect.isclass(public) else public).parameters
    assert set(parameters) - {"self", "args", "kwargs"} <= described
