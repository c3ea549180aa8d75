"""What an operator sees of a running service: metrics, health and the HTTP endpoints that show them."""
