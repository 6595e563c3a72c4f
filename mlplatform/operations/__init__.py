"""What a person starts from a terminal: runs, servers, the demo, the status."""
