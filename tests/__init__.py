"""The tests: specifications of the engine, the storage and the window."""
