"""Scenario files: SQLAlchemy over SQLite."""
