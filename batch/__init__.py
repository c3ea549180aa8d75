"""The history application: one module per job, over stored days."""
