"""Taking a model out of Python: its graphs, their files, and the page that runs them."""

import moebius.torchvision_schemas  # noqa: F401  (before diffusers, which may import torchvision)
