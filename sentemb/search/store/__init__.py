"""The index on disk and its changes."""
