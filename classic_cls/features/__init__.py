"""Descriptors and encoders: each one stem, a transformer and a plain function in its own file."""
