"""Pictures of every view, to be looked at: ``make shots``."""
