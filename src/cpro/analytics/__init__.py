"""What happened: rows of operations, connections, subscriptions and publications, from the journal to the sinks."""
