"""Coverage: how many old answers can be given again, looked at each night."""
