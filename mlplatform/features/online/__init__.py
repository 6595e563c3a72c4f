"""The online store: the newest published feature values, for requests that are waiting."""
