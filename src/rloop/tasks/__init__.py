"""Where problems come from, and the verifiers that judge completions."""
