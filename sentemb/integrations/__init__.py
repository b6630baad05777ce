"""sentemb's models and indexes in other libraries: one file a library, which is imported by its own name."""
