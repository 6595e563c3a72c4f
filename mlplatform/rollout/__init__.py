"""The gate, the promotion, and the way a new model takes traffic."""
