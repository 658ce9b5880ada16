"""A submission tree, whoever made it: its parts, and how each is read without believing or executing anything in it.

Never: a rule's opinion, and nothing that writes.
"""
