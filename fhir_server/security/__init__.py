"""Who asks, what that allows, and what is written down of it; pure. design/security.md."""
