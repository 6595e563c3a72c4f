"""From a training set to an evaluated model."""
