"""``python -m wattbench``."""

from wattbench.cli.main import main

if __name__ == "__main__":
    main()
