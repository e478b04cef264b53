"""Other servers that a setting names; the only package that imports the HTTP client."""
