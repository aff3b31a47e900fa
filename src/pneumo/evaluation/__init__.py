"""Stored predictions and what they say: scores, thresholds, intervals, comparisons.

Nothing here runs a network, reads an image or words a verdict for people.
"""
