"""``python -m sentemb``."""

from sentemb.cli import main

main()
