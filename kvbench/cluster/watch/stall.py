"""Whether the exchange of counters in the load still moves on, as one thread sees it that does not take part in it.

Nothing travels. Time counts only as far as the one who looks saw it pass: a process that was suspended has not waited.
"""


class Pulse:
    """What is known of the exchange in the load. The main thread counts up, the watch's thread looks."""

    def __init__(self, running: bool = False) -> None:
        self.running = running
        self.polls = 0
        self.completed = 0
        self.stuck_s = 0.0
        """For so long the main thread has not called."""
        self.stalled_s = 0.0
        """For so long no exchange was completed."""
        self.longest_s = 0.0
        """The longest that an exchange took until now: on a crowded node it may be many seconds."""
        self._seen = (0, 0)

    def pass_time(self, passed_s: float) -> None:
        """`passed_s` have gone by since the last call."""
        seen = (self.polls, self.completed)
        self.stuck_s = self.stuck_s + passed_s if seen[0] == self._seen[0] else 0.0
        self.longest_s = max(self.longest_s, self.stalled_s if seen[1] != self._seen[1] else 0.0)
        self.stalled_s = self.stalled_s + passed_s if seen[1] == self._seen[1] else 0.0
        self._seen = seen
