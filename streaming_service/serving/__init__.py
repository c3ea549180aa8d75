"""The service's own port: candles over WebSocket, REST, and the dashboard, beside the monitoring endpoints."""
