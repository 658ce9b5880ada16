"""What can be known before anything is measured: sizes, forecast, node, storage, and what the user expects of them.

Never: anything that runs while a load does.
"""
