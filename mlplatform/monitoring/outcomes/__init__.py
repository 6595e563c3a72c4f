"""What became of what was answered: labels as they come, and what they say of the models."""
