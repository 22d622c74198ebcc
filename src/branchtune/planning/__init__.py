"""Planning: affinity and a budget -> the tree of task groups."""

from __future__ import annotations

from branchtune.planning.controls import anti_affinity_tree, random_tree
from branchtune.planning.describe import describe_plan
from branchtune.planning.planner import plan

__all__ = ["anti_affinity_tree", "describe_plan", "plan", "random_tree"]
