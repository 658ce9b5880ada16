"""What an audit asks of a leaf: functions of plain facts, each answered by findings, or by why it was not looked at.

Never: a file, and how anything is shown.
"""
