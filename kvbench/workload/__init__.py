"""What users ask for, in time: personas, the reference's users, traces, as schedules that are the same everywhere.

Never: storage, bytes, or when something really happened.
"""
