"""The server: HTTP in front of one engine, and a page for people.

``app`` puts it together; ``limits`` lets requests in or turns them away; ``inference_worker`` turns many requests into
few calls of the engine; ``uploads`` has an address for each method of the engine; ``chat`` speaks the OpenAI protocol;
``replies`` says what went wrong; ``metrics`` counts.
"""
