"""The pure cores (floor 1): no I/O, no clock, no randomness of their own."""
