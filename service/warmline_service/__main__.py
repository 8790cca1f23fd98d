"""`python -m warmline_service` is `warmline`."""

from warmline_service.cli import main

main()
