"""Reads commands from Protobuf."""

# All commands of a payload, not empty, in order; the last one may be malformed.
cdef list parse_messages(bytes payload)
