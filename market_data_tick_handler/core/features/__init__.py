"""Feature groups: one module per group, each with the same names (see contract.py)."""
