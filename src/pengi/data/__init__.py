"""Manifests, tasks, composed examples and the loader: from labelled recordings to (audio, prompt, target)."""
