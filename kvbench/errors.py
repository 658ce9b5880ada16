"""The error that a user sees: one message that names what was wrong, where, and what to do."""


class KvbenchError(Exception):
    """A problem the user can act on; printed as one message, never as a traceback."""
