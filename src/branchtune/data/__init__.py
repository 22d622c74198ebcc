"""Datasets, joint transforms, batching: whatever turns files or rendered scenes into batches for a model."""
