"""One module per figure, or per group of figures that are made alike."""
