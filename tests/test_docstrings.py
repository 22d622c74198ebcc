"""Every public name says what it is, and what each of its arguments is."""

from __future__ import annotations

import inspect

import pytest
from docstring_parser import DocstringStyle, parse

import branchtune


@pytest.mark.parametrize("name", [name for name in branchtune.__all__ if not name.startswith("_")])
def test_a_public_name_describes_its_arguments(name: str) -> None:
    public = getattr(branchtune, name)
    texts = [part.__doc__ or "" for part in (inspect.getmro(public) if inspect.isclass(public) else [public])]
    assert texts[0]
    entries = [entry.arg_name for text in texts for entry in parse(text, DocstringStyle.GOOGLE).params]
    described = {argument.strip() for entry in entries for argument in entry.split(",")}
    parameters = inspect.signature(public.__init__ if inspect.isclass(public) else public).parameters
    assert set(parameters) - {"self", "args", "kwargs"} <= described
