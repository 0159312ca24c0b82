"""Specifications of the window."""
