"""The methods that the switches of a recipe give, by name (RLoop, plain RL, RAFT, ...)."""
