"""The only code that talks to a venue over a network."""
