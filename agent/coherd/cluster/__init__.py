"""Trio tasks that drive the cores (floor 3)."""
