"""Figures of papers from arrays and numbers: images, curves, latents against the prior.

Like `gencomp.report` this package draws and knows nothing of runs or shard sets: fill a `Sheet`,
`Panel`, `LatentSet` or `DrawnCurve`, call its function, and get a matplotlib figure; `encode` makes
a file of it.

    style            colours, type and file formats
    tiles            images in exact pixels beside each other, with headings
    curves           metrics against the rate, with intervals, of one protocol an axis
    latents          numbers that compare latents with the prior, and their figure
    rate_distortion  curves of decoders by annealed importance sampling; rate_axes their axes
    convergence      how far these curves can be trusted
"""
