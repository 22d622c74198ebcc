"""Adapter families: what is trained inside the backbone for one group at one site."""
