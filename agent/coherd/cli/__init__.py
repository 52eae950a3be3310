"""The command line (floor 6): one module a verb group."""
