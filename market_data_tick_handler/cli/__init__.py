"""What the command line accepts. Each command calls the module of `commands` that does the work, imported inside it, so
that `--help` answers at once."""
