"""Moves the bytes of exchange adapters: sockets, REST, proof of life, raw journal; one shell for all venues."""
