"""Late-interaction search over a store. No torch here."""
