"""Pure tensor functions. ``gather`` is the only caller of collectives in sentemb."""
