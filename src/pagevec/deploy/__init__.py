"""Deployments: the same application and the same engine, on other people's machines or your own."""
