"""From recordings to clips: decoding, windows and training augmentation.

``decode`` turns whatever a user hands over into mono float32 at a rate, ``windows`` cuts it, ``augment`` varies it.
``sources`` (what counts as a recording), ``readers`` (block-wise access to one opened recording) and ``containers``
(what a file's header promises) serve ``decode``. Only ``augment`` needs torch, so import the modules, not this package.
"""
