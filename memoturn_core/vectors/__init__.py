"""Vectors in collections, and the index that searches vectors."""
