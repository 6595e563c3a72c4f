"""When a model is trained again, without a hand on it."""
