"""coherd keeps the caches of many hosts coherent: what is invalidated once is dropped everywhere."""

__version__ = "0.1.0"
