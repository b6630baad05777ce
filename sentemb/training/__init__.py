"""Training: objective, step, loop, optimiser, checkpoints, monitor."""
