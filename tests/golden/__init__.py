"""The engine against answers of a real emulator."""
