"""Planning: affinity and a budget -> the tree of task groups."""

from __future__ import annotations


__all__ = ["describe_plan", "plan"]
