"""Hard negatives for training data: where candidates come from (sources) and which become negatives (rules).

    sentemb.mine("pairs.jsonl", output="mined.jsonl", rules=[RelativeMargin(fraction=0.05)])

``run.mine`` does that with files, resumably. ``miner.Miner`` does it with arrays alone, also while training.
"""
