"""The functions of FHIRPath, by what they are about."""
