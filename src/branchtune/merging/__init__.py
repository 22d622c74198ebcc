"""Fold trained adapters into copies of the weights: a model for inference, without adapters where that pays."""
