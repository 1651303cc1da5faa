"""`python -m nexus` is the command line; torchrun needs it: `torchrun -m nexus train ...`."""

from nexus.cli import main

main()
