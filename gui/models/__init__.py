"""Qt models over engine values."""
