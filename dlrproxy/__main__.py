"""`python -m dlrproxy`, and the `dlrproxy` command."""

from dlrproxy.cli import main

if __name__ == "__main__":
    main()
