"""What exchanges send over their own sockets, as tick columns."""
