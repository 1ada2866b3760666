"""The graph's cut: what has arrived at the border, scaled and added up."""

import torch

from moebius.distill.cut import Arrived, with_gradient


def test_gradients_that_share_memory_are_scaled_once_each() -> None:
    """A concatenation hands out views of one gradient, a sum the same one twice."""
    leaves = [torch.zeros(3, requires_grad=True) for _ in range(5)]
    both, one, broad = torch.arange(1.0, 7), torch.full((3,), 5.0), torch.tensor([7.0]).expand(3)
    grads = [both[:3], both[3:], one, one, broad]
    kept = [gradient.clone() for gradient in grads]
    part = Arrived(zip(leaves, grads, strict=True))
    with_gradient(torch.tensor(1.0), [(torch.tensor(10.0), part)]).backward()
    for leaf, gradient in zip(leaves, kept, strict=True):
        assert torch.equal(leaf.grad, 10 * gradient)


def test_parts_are_weighed_and_added_up() -> None:
    leaves = [torch.zeros(3, requires_grad=True) for _ in range(2)]
    first = Arrived({leaves[0]: torch.ones(3), leaves[1]: torch.full((3,), 2.0)})
    second = Arrived({leaves[1]: torch.full((3,), 4.0)})
    total = with_gradient(
        torch.tensor(9.0), [(torch.tensor(3.0), first), (torch.tensor(0.5), second)]
    )
    assert total.item() == 9
    (2 * total).backward()
    assert torch.equal(leaves[0].grad, torch.full((3,), 6.0))
    assert torch.equal(leaves[1].grad, torch.full((3,), 16.0))
