"""Files that tasks and reports read: pairs, labelled texts, retrieval folders, TREC files, stored vectors."""
