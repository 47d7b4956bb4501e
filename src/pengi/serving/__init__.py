"""The server: HTTP in front of one engine, and a page for people.

``app`` is the application; ``limits`` refuses requests that are too large or too many; ``inference_worker`` answers
many requests in few calls of the engine; ``queries`` are those calls; ``uploads`` has an address for each method of
the engine; ``chat`` is the OpenAI protocol; ``replies`` are the errors; ``metrics`` counts.
"""
