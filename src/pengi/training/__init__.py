"""Training: a recipe, a loop and its log. ``train`` is what the command line calls."""

from pengi.training.loop import train

__all__ = ["train"]
