"""MongoDB: the only package that imports the driver. Section 16 of ARCHITECTURE.md."""
