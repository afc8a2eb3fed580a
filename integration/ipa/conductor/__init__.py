"""A test conductor."""
