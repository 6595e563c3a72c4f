"""What happens to a score, the same in evaluation, batch, replay and serving."""
