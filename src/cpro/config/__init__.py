"""Settings: the typed model, and reading and validating it."""
