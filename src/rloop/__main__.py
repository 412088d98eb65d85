"""`python -m rloop`, as `torchrun -m rloop run RECIPE` starts it."""

from rloop.cli import main

main()
