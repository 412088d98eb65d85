"""avg@n, maj@n, pass@k, cover@tau, forgetting, diversity, and the evaluation phase."""
