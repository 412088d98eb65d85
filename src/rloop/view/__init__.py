"""A local web page over run directories: curves that live, and every trajectory to look at."""
