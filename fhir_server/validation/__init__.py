"""Whether a resource is what R4 says it may be: resource and definitions in, issues out."""
