"""The server: HTTP in front of one engine, and a page for people.

``app`` puts it together; ``gate`` lets requests in or turns them away; ``batcher`` turns many requests into few calls
of the engine; ``chat`` speaks the OpenAI protocol; ``replies`` says what went wrong; ``metrics`` counts.
"""
