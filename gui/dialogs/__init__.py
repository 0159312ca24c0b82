"""Windows that ask or tell something. Each is imported where it is first needed, not at the start."""
