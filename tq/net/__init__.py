"""The trio edge of the network: TLS, listening, dialling."""
