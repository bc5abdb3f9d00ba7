"""The store in Qdrant: a server's collections, or Qdrant's engine in this process."""
