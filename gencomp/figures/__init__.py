"""Figures of papers from arrays and numbers: sheets of images, curves, latents against the prior.

Like `gencomp.report` this package draws and knows nothing of runs or shard sets: fill a `Sheet`,
`Panel` or `LatentSet`, call its function, and get a matplotlib figure; `encode` makes a file of it.

    style    colours, type and file formats
    tiles    images in exact pixels beside each other, with headings
    curves   metrics against the rate, with intervals, of one protocol an axis
    latents  numbers that compare latents with the prior, and their figure
"""
