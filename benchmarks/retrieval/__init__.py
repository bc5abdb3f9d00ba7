"""Does a model find the page that a query's words stand on? Pages held out, and real ones."""
