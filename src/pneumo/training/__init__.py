"""A recipe, the network it describes, and its training.

Nothing here knows a threshold, a data set's title, a preprocessing step or a test label.
"""
