"""Where student and teacher are compared for the coarse loss, and the adapter between them."""

from torch import Tensor, nn
from torch.nn import functional as F

from moebius.models.denoiser import Denoiser

Shape = tuple[int, int, int]


class Adapter(nn.Module):
    """Learned 1x1 convolution to the teacher's width, resampled to the teacher's map."""

    def __init__(self, source: Shape, target: Shape) -> None:
        super().__init__()
        self.size = target[1:]
        self.conv = nn.Conv2d(source[0], target[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_student, h, w) -> (B, C_teacher, h', w')."""
        x = self.conv(x)
        return x if x.shape[-2:] == self.size else F.interpolate(x, self.size, mode="bilinear")


def teacher_tap(student: Denoiser, teacher: Denoiser, student_tap: str) -> str:
    """The teacher's counterpart of a tap: its decoder's first feature at the same scale.

    For the paper's pair that is the first up stage, upsampler included; a teacher of the
    student's own depth is compared at the feature of the same name.
    """
    ours, theirs = student.feature_shapes(64), teacher.feature_shapes(64)
    if len(teacher.architecture.stages) != len(student.architecture.stages):
        for name, shape in theirs.items():
            if name.startswith("up.") and shape[1:] == ours[student_tap][1:]:
                return name
    return student_tap


def check_teacher(student: Denoiser, teacher: Denoiser) -> None:
    """Refuses a teacher that cannot be given what the student is given, or answers otherwise.

    Raises:
        ValueError: naming what differs.
    """
    ours, theirs = student.architecture, teacher.architecture
    for key in ("in_channels", "out_channels", "context_length"):
        if getattr(ours, key) != getattr(theirs, key):
            raise ValueError(
                f"teacher {theirs.name} has {key} {getattr(theirs, key)}, student {ours.name} "
                f"{getattr(ours, key)}: choose a teacher for the same codec and categories"
            )


def join_taps(
    student: Denoiser,
    teacher: Denoiser,
    latent_size: int,
    student_name: str | None = None,
    teacher_name: str | None = None,
    adapter: bool = False,
) -> tuple[str, str, Adapter | None]:
    """Names of both taps, and the adapter where their shapes differ.

    Args:
        student, teacher: the two denoisers.
        latent_size: side of the latents that they will see.
        student_name, teacher_name: features to compare; `None` picks the paper's.
        adapter: whether differing shapes may be joined.

    Raises:
        ValueError: a feature that does not exist, or shapes that differ without an adapter.
    """
    ours, theirs = student.feature_shapes(latent_size), teacher.feature_shapes(latent_size)
    student_name = student_name or student.coarse_tap
    _check_name(student_name, ours, "student", student)
    teacher_name = teacher_name or teacher_tap(student, teacher, student_name)
    _check_name(teacher_name, theirs, "teacher", teacher)
    source, target = ours[student_name], theirs[teacher_name]
    if source == target:
        return student_name, teacher_name, None
    if not adapter:
        raise ValueError(
            f"the coarse taps differ: student {student.architecture.name} {student_name} is "
            f"{source}, teacher {teacher.architecture.name} {teacher_name} is {target}; "
            "choose other taps or set distill.adapter=true"
        )
    return student_name, teacher_name, Adapter(source, target)


def _check_name(name: str, shapes: dict[str, Shape], role: str, model: Denoiser) -> None:
    if name not in shapes:
        raise ValueError(
            f"{role} {model.architecture.name} has no feature {name!r}; it has {', '.join(shapes)}"
        )
