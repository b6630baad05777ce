"""What an evaluation leaves: results files, tables, pictures, scores of TREC runs."""
