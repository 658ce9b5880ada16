"""The highest load within objectives: the limit from probes, what a study of it says, and how that is printed.

Never: running anything."""
