"""Planning: affinity and a budget -> the tree of task groups."""

from __future__ import annotations

from branchtune.planning.describe import describe_plan
from branchtune.planning.planner import plan

__all__ = ["describe_plan", "plan"]
