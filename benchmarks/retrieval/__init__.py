"""Whether a model finds the page that a query's words stand on: held-out pages and real ones."""
