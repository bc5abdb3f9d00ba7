"""Documents on disk, as pages."""
