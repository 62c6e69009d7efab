"""Bytes to requests and responses on uvloop: a server that accepts, and a pooled keep-alive client."""
