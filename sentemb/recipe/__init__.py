"""Recipes: a TOML file or a Python value, checked, built and trained."""
