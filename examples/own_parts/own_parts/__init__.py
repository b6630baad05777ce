"""Parts of a stranger's for sentemb, one a file: a loss, a sampler, a pooling, an index kind, a task, a reader."""
