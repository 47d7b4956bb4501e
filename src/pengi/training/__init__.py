"""Training: recipes, the loop and its log. The command line calls ``train``."""

from pengi.training.loop import train

__all__ = ["train"]
