"""The tree of a run on the terminal, the same from `fit` and from `plan`."""

from __future__ import annotations

from branchtune.adapters.adapter import Adapter
from branchtune.affinity import Affinity
from branchtune.backbone.spec import BackboneSpec
from branchtune.planning import describe_plan
from branchtune.progress import Reporter
from branchtune.tree import TaskTree


def say_plan(
    tree: TaskTree, affinity_or_spec: Affinity | BackboneSpec, adapter: Adapter | None, reporter: Reporter
) -> None:
    """Draw it as wide as the terminal; see `describe_plan`."""
    width = reporter.console.width
    reporter.say(describe_plan(tree, affinity_or_spec, adapter, width=width, ascii_only=reporter.ascii_only))
