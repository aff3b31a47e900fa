"""Preprocessing steps, and combos of them.

Nothing here may read a label, a split or the name of a file.
"""
