"""Searching: filters, words, fusion, sets."""
