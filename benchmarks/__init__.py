"""Benchmarks of branchtune: ratios measured side by side in one process. `python -m benchmarks --help`."""
