"""HTTP: route, limit, render. The only package that knows FastAPI."""
