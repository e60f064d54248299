"""``python -m passivx``."""

from passivx.cli import main

if __name__ == "__main__":
    main()
