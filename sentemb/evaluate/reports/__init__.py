"""What an evaluation leaves: results files, tables, comparisons, scores of TREC runs."""
