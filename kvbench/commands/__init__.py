"""The commands: each parses its options, calls, and prints.

Here live the words of the command line and what a command shows. Never: a decision, a figure, a file format.
"""
