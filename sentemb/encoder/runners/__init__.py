"""The forms in which a backbone turns token ids into pooled vectors: ``choose`` picks one at load."""
