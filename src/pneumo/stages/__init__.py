"""One module a pipeline stage: read, call the domain, write. Stages never import one another."""
