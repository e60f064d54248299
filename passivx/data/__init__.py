"""Tick files: read, check, generate."""
