"""When users were last active and last online."""
