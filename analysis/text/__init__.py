"""Numbers and names for people and programs: units, and values of a file made fit for a console.

Never: a figure.
"""
