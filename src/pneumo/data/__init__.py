"""The data set: where its files come from, how a file becomes pixels, the table of images, the split.

Nothing here knows of steps, networks or scores.
"""
