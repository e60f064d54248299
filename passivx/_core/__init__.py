"""Arithmetic and structs compiled to C: no I/O, no clock, no logging, no asyncio."""
