"""What a model could use instead of the lungs: checks of the data, probes and stress tests of trained models.

Nothing here trains or changes a model that is kept.
"""
