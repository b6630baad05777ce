"""How sure a score is: metrics, resampling, tests, comparisons."""
