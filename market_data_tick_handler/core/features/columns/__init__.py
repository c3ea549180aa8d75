"""Declarations of the published columns, one module per feature group."""
