"""What the language model is given about a recording, beside the audio prefix."""
