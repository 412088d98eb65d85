"""avg@n, pass@k, forgetting, diversity, and the evaluation phase."""
