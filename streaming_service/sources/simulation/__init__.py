"""A simulated exchange: a seeded market, a fault script, and the source that paces both."""
