"""A classifier of pixels, which gives a segmentation network for judging images of a labelled set.

It minimises the cross-entropy of a label map. `gencomp features` writes it as a TorchScript file,
and `gencomp evaluate --segmentation` counts how well it recognises the labels in reconstructions.

    recipe   the sections of the recipe; imports no torch
    system   the objective, its evaluation and the network for a file
"""
