"""What would change if a part of the system were faster: figures of runs with virtual speeds, and of their study.

Never: figures of ordinary runs.
"""
