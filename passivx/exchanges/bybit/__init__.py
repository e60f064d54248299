"""Bybit V5: perpetuals of the unified account, inverse first; linear is the same code."""
