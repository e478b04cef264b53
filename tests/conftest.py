"""What holds for every test: generated examples are the same on every run and machine."""

from hypothesis import settings

# A property that fails once fails on every machine. A deadline would measure the machine instead.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
