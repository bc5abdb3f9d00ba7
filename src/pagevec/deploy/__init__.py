"""Where the service runs: deployments, each over the same application and embedder."""
