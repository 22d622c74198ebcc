"""YAML files of the user's: errors that name the file and the line."""

from __future__ import annotations

from pathlib import Path

import yaml

from branchtune.errors import UserError


def check_yaml(path: Path, purpose: str = "a configuration is a YAML mapping, see configs/ for examples") -> None:
    """Raise a `UserError` that names file and line unless `path` holds a YAML mapping that has every key once.

    Args:
        path: of the file.
        purpose: what such a file is, for the message about one without keys.
    """
    if not path.is_file():
        raise UserError(f"no configuration file {str(path)!r}: see configs/ for examples")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
        _check_repeated(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{line}: {error.problem or error.context}, correct the YAML there") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} holds no keys, {purpose}")


def _check_repeated(root: yaml.Node | None) -> None:
    """Refuse a key that a mapping holds twice: YAML's readers keep the last one and say nothing."""
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        keys = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            nodes.append(value)
