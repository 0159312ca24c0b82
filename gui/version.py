"""The version of the program, as pyproject.toml gives it to installers."""

VERSION = "0.1.0"
