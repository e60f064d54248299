"""The live bot: from a venue's events to orders, and what keeps that safe."""
