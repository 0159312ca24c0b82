"""The host: its processors, its frames, its page tables."""
