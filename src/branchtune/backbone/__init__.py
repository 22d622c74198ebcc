"""Levels, sites, feature shapes and costs of a timm, Hugging Face or plain module, from a traced forward."""
