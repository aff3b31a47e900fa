"""Names of layers by which a saved network's parts are found again. A network on disk keeps them."""

HEAD = "head"  # the network on a backbone's features; there is none without a backbone
PROBABILITY = "probability"  # the last layer, of the head where there is one
UNFLIPPED = "unflipped"  # the network inside one that averages over an image and its mirror image
