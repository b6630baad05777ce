"""The whole journey on data that every machine has: the docstrings of its installed Python packages."""
