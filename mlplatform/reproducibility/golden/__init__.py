"""Golden traffic: stored requests and answers that a change of code may not move in silence."""
