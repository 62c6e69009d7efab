"""May a user do this now? Rules, buckets and the gate that asks them."""
