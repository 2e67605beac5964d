"""Coding turns symbols into bytes and back, and holds what the codecs of all systems share.

fixed_length  packs symbols at log2(L) bits each
tables        hold the integer statistics of a code
entropy       codes symbols by such statistics
range_coder   codes symbols by integer frequencies that are given step by step
coders        are pairs of encode and decode, which compose into larger ones
ans           is a stack of symbols with integer frequencies, for bits-back coding
latent_model  is what coders of latents know of a model
logistic      codes the values of an image by a discretised logistic distribution
latent_bins   are the bins of latents that a stack takes samples of
bits_back     chains images over one stack
universal_quantization  codes latents with a uniform posterior by a shared dither
relative_entropy        codes samples of latents with a Gaussian posterior
portable      computes exp, log and the normal distribution to the same bits everywhere
webp          is lossless WebP without its file header
adaptive_bits codes bits by probabilities that adapt, in integers
label_maps    codes maps of ids without loss, coarse to fine, with
label_contexts which says what the known pixels around a pixel tell
payload       is the shorter of a fixed-length and an entropy-coded form
container     is the file format of every codec
joint         is the header of a container of many pictures
fields        are the numbers of a header
digest        finds pictures that decode to other pixels than where they were written
fingerprint   names weights, so that a codec recognises the streams that it can read
tiles         cuts images of any size into square tiles
noise         is what decoders draw, by the code and a few bits of salt
latent_model  is what a coder of latents needs to know of a model
relative_entropy/  codes Gaussian latents as samples of their posterior
classical     runs JPEG, WebP, JPEG 2000, AVIF and JPEG XL for comparison
"""
