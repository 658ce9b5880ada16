"""Objects in a bucket of an object store: by requests over HTTP, several of which are in flight for one thread.

Here live the tier, its target, and all that knows the library that sends the requests. Never: what a file is.
"""
