"""`python -m avsc_e2e` is `avsc`."""

from avsc_e2e.cli import main

if __name__ == "__main__":
    main()
