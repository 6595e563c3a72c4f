"""The serving runtime: what runs inside the Bento."""
