"""One run: the loop over steps, phases and batches, its checkpoints, and where it is computed."""
