"""One run: its phases in order (`runner`), what a rank builds for them, and what comes of the load.

Here lives what happens when. Never: how one operation is decided or carried out, and nothing of several runs.
"""
