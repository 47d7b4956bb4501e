"""``python -m pengi`` is the ``pengi`` command."""

from __future__ import annotations

from pengi.cli import main

if __name__ == "__main__":
    main()
