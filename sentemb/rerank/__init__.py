"""Cross-encoders are trained here on lists of candidates, as ``sentemb mine`` finds them."""
