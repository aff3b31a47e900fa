"""A trained model as one file, and in use.

Nothing here trains or evaluates.
"""
