"""Predictions, targets and errors as pictures, and their encodings."""
