"""The server: HTTP in front of one engine, and a page for people.

``app`` is the application; ``limits`` refuses requests if they are too large or too many; ``inference_worker`` batches
requests for the engine; ``queries`` has the calls of the engine; ``uploads`` has an address for each method of the
engine; ``chat`` implements OpenAI's protocol; ``replies`` has the errors; ``metrics`` counts requests.
"""
