"""What the language model reads about a recording: mappers to prefix embeddings, and evidence as text."""
