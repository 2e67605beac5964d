"""The figures of papers, drawn from arrays and numbers: images, curves, and latents.

Like `gencomp.report`, this package only draws and knows nothing of runs or shard sets. Fill a
`Sheet`, `Panel`, `LatentSet` or `DrawnCurve` and call its function to get a matplotlib figure;
`encode` turns the figure into the bytes of a file.

    style            colours, type and file formats
    tiles            images side by side in exact pixels, under headings
    curves           metrics against the rate, with intervals; one measuring protocol for each axis
    latents          numbers that compare latents with the prior, and their figure
    rate_distortion  curves of decoders by annealed importance sampling
    rate_axes        the axes of these curves
    convergence      how far these curves can be trusted
"""
