"""From symbols to bytes and back, and what codecs of any system share.

fixed_length  symbols packed at log2(L) bits each
tables        integer statistics of a code
entropy       symbols coded by such statistics
range_coder   symbols coded by integer frequencies that are given step by step
coders        encode and decode side by side, composed into larger codes
payload       the shorter of the two
container     the file format of every codec
fingerprint   names of weights, by which a codec knows its streams
tiles         images of any size as square tiles
noise         what decoders draw without a bit in the file
classical     JPEG, WebP, JPEG 2000, AVIF and JPEG XL, to compare with
"""
