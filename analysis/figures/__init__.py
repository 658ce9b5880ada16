"""The tables of a run: operations, requests, reads of a shared key space, made of its rows.

Never: words, warnings or printing (`summary`).
"""
