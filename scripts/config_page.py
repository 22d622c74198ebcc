"""Write docs/configuration.md, every configuration key with type, default and meaning, from the code's docstrings.

python scripts/config_page.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from docstring_parser import DocstringStyle, parse

import branchtune
from branchtune import config
from branchtune.atomic import write_text
from branchtune.data.augmentation import Augmentation
from branchtune.data.declared import Declaration
from branchtune.data.declared_label import Label
from branchtune.training.schedule import Schedule

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"

HEAD = """\
# Configuration

A configuration is a YAML file. Every key can be overridden on the command line by its dotted name, as in
`--data.batch_size=8`; `--adapter.r=16` reaches into the arguments of a class. `branchtune fit CONFIG --print_config`
prints the whole of it. The `config.yaml` of a run directory holds the whole of it too: running that again repeats the
run.

Only `tasks` has no default. A run may need more:

- `tree.groups`, `tree.levels` or a budget (`tree.budget`, `tree.budget_params`), where `method` is `branched`, the
  default, `random` or `anti`;
- `data.root`, where `data.kind` is not `scenes`, the default;
- `data.train_size`, `data.val_size` and `data.test_size`, where it is.

This page is made from the code by `python scripts/config_page.py`.
"""

SECTIONS = {
    "backbone": config.BackboneConfig,
    "data": config.DataConfig,
    "data.augmentation": Augmentation,
    "decoder_fit": config.DecoderFitConfig,
    "affinity": config.AffinityConfig,
    "tree": config.TreeConfig,
    "schedule": Schedule,
    "start_from": config.StartFromConfig,
    "dataset.yaml": Declaration,
    "dataset.yaml: tasks": Label,
}

CLASSES = {
    "Tasks": ("tasks.NAME", "tasks."),
    "Adapters": ("adapter", "adapters."),
    "Decoders": ("decoder", "decoders."),
    "Task optimisers": ("optimizer", "training."),
}

CLASS_NOTE = """\
The value of `{key}` names a class and its arguments: `{{class_path: branchtune.{name}, init_args: {{...}}}}`. A class
of your own is named by its module, see [adding your own](extending.md).
"""


class Key(NamedTuple):
    """One entry of a list."""

    name: str
    type: str
    default: str
    meaning: str


def page() -> str:
    """The page."""
    parts = [HEAD, "## A run", listing(keys(config.RunConfig))]
    for name, kind in SECTIONS.items():
        parts += [f"## `{name}`", summary(kind), listing(keys(kind))]
    for title, (key, folder) in CLASSES.items():
        kinds = [getattr(branchtune, name) for name, module in branchtune._MODULES.items() if module.startswith(folder)]
        kinds = [kind for kind in kinds if not inspect.isabstract(kind)]
        parts += [f"## {title}", CLASS_NOTE.format(key=key, name=kinds[-1].__name__)]
        for kind in kinds:
            parts += [f"### `branchtune.{kind.__name__}`", summary(kind), listing(keys(kind))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def summary(kind: type) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join((parse(kind.__doc__ or "", DocstringStyle.GOOGLE).short_description or "").split())


def keys(kind: type) -> Iterator[Key]:
    """The arguments of a class.

    Raises:
        KeyError: one without a meaning in the docstring.
    """
    meanings, types_ = described(kind), _types(kind)
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:
        name = parameter.name
        yield Key(name, type_text(types_[name]), _default(kind, parameter), meanings[name])


def described(kind: type) -> dict[str, str]:
    """What the docstrings of a class and of those it extends say about each argument."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for entry in parse(base.__doc__ or "", DocstringStyle.GOOGLE).params:
            meaning = " ".join((entry.description or "").split())
            found |= dict.fromkeys((name.strip() for name in entry.arg_name.split(",")), meaning)
    return found


def type_text(kind: Any, many: bool = False) -> str:
    """A type in words; `many` for the plural."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _or([f"`{value}`" for value in arguments])
    if origin in (typing.Union, types.UnionType):
        return _or(["null" if part is type(None) else type_text(part) for part in arguments])
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(type_text(part) for part in arguments)}]"
    if origin in (list, tuple):
        return f"list{'s' * many} of {type_text(arguments[0], many=True)}"
    if origin is dict:
        return f"{type_text(arguments[1], many=True)} by {'level' if arguments[0] is int else 'name'}"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "argument"}
    if kind in words:
        return words[kind] + "s" * many
    return _link(kind)


def _or(parts: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _link(kind: type) -> str:
    """To the section that says which keys, or which classes, there are."""
    for name, section in SECTIONS.items():
        if section is kind:
            return f"[keys](#{re.sub('[.:]', '', name).replace(' ', '-')})"
    title = {"Task": "Tasks", "Adapter": "Adapters", "Decoder": "Decoders"}.get(kind.__name__, "Task optimisers")
    return f"[class](#{title.lower().replace(' ', '-')})"


def listing(rows: Iterator[Key]) -> str:
    """Markdown: a list, which a narrow screen can show, unlike a table of four columns."""
    return "\n".join(f"- **`{name}`** · {kind} · {default}<br>{text}" for name, kind, default, text in rows)


def _types(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)
    return {name: hint for name, hint in hints.items() if name != "return"}


def _default(kind: type, parameter: inspect.Parameter) -> str:
    value = parameter.default
    if dataclasses.is_dataclass(kind):
        field = next(field for field in dataclasses.fields(kind) if field.name == parameter.name)
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
    if value is inspect.Parameter.empty:
        return "required"
    if dataclasses.is_dataclass(value):
        path = type(value).__name__
        return f"default `branchtune.{path}`" if path in branchtune._MODULES else "default: those of its keys"
    written = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return f"default `{written.removesuffix('...' + chr(10)).strip()}`"


if __name__ == "__main__":
    write_text(PAGE, page())
    print(f"wrote {PAGE.relative_to(ROOT)}")
