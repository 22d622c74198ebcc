"""Decoders: features of a task's path -> its output."""
