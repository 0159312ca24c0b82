"""Scenario files: SQLAlchemy over SQLite.

`content` is what a file holds, `files` opens and saves, `recovery` keeps what is not saved yet, `images` says which
memory images a scenario may open. Nothing here is imported by importing the package: SQLAlchemy costs 0.1 s.
"""
