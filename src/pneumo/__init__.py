"""Reproducible, honest experiments on pneumonia classification in chest X-rays."""
