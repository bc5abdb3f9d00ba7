"""The commands of `pagevec`, one module each."""
