"""Specifications of the engine."""
