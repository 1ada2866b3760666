"""3x3 convolutions of a teacher and of a codec: as they are, and by Winograd's tiles."""

import torch
from _ratio import ratio, show

from moebius.blocks.products import Conv2d
from moebius.models.winograd import WinogradConv

CASES = ((2, 320, 32), (2, 640, 32), (2, 640, 16), (4, 256, 256), (4, 512, 128))
"""m, channels, side of the map."""


@torch.no_grad()
def main() -> None:
    """Shows the ratio of each."""
    for tile, channels, side in CASES:
        conv = Conv2d(channels, channels, 3, padding=1)
        form = WinogradConv(conv, tile)
        x = torch.randn(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        took = ratio(lambda conv=conv, x=x: conv(x), lambda form=form, x=x: form(x), rounds=4)
        show(f"3x3 convolution, {channels} channels, {side}x{side}, m = {tile}", took)


if __name__ == "__main__":
    main()
