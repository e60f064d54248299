"""Numbers and tables from results; never imports an engine."""
