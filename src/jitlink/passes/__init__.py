"""Link-graph passes that no format or architecture owns (layer 2)."""
