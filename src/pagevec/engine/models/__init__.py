"""A checkpoint on its way to a device: what happens once, when a model is loaded."""
