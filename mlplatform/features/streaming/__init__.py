"""Streaming: facts that arrive within the day, and what follows from them before it is over."""
