"""What happens once: a model's checkpoint is found, read, and moved to its device."""
