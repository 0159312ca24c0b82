"""Specifications of the scenario files."""
