"""The service on Modal."""
