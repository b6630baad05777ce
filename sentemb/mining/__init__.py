"""Hard negatives for training data: sources propose candidates, rules refuse some, ``run.mine`` writes the rest."""
