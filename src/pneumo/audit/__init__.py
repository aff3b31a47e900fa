"""What could be cheated with: checks of the data, probes of a trained model.

Nothing here chooses or changes a model.
"""
