"""The data set: sources of files, decoding of files to pixels, the table of images, the split.

Nothing here may use preprocessing steps, networks or scores.
"""
