"""Kinds of vector index."""
