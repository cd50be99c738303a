"""Link-graph passes that are independent of format and architecture (layer 2)."""
