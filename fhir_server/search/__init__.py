"""Search: what is written beside a resource, and what a query becomes. Pure."""
