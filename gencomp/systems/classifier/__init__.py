"""A classifier, which gives a feature network for labelled sets where Inception is not at hand.

It minimises the cross-entropy of the labels that the shards carry. `gencomp features` writes the
layers before the last one as a TorchScript file, whose features `gencomp evaluate --features`
compares. A Fréchet distance of these features is no Fréchet Inception distance: it compares with
distances of the same file alone.

    recipe   the sections of the recipe; imports no torch
    system   the objective, its evaluation and the feature network
"""
