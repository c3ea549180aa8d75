"""What a service would need, before it is started: connections, keys, tables, disk and cost from the settings alone."""
