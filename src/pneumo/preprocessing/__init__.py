"""Steps from pixels to pixels, and the combos they form.

Nothing here may see a label, a split or a file's name.
"""
