"""One table of rows for each segment, each in the module of its name."""
