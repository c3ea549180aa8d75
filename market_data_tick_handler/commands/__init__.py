"""What each sub-command does; `main` parses and calls in here, one module per command."""
