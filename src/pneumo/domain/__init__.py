"""Arrays and frames in, arrays and frames out: nothing here knows about stages or the command line."""
