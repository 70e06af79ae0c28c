"""Blob files: the only package that touches them. It knows nothing of the wire."""
