"""THE EDGE OF THE NETWORK, with trio: TLS, listening, dialling, and what a peer may cost before it is known.

It owns sockets and certificates. It never knows what a message means.
"""
