"""The Qt front end over the engine's values."""
