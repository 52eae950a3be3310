"""The wire contract, generated from proto/ by proto/generate.py; never edited."""
