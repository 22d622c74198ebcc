"""Training with Lightning: losses, task optimisers, schedule, checkpoints, and what is recorded meanwhile."""
