"""Metrics, references, and the relative gain over them."""
