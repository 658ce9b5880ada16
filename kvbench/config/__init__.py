"""One typed description of a run: every section with every default, once, its source, and what is wrong with it.

Here lives what a user may choose. Never: what follows from it; nothing here looks at a node or a storage.
"""
