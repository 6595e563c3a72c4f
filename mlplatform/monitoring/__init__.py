"""What the models answered, and what becomes of it: the prediction log."""
