"""What a set of encoded draws is: the settings that made it, its shards, and what fits it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PositiveInt

from moebius.config import parse
from moebius.config.schema import Strict
from moebius.data.manifest import Record
from moebius.data.sample_spec import SampleSpec
from moebius.data.samples import InpaintingSamples
from moebius.data.shards.storage import Storage
from moebius.models.codec import LatentCodec

INDEX, SETTINGS = "index.json", "settings.json"
Model = TypeVar("Model", bound=Strict)
SHARD_NAME = r"[0-9]{6,}-[0-9a-f]{64}\.safetensors"


class Encoding(Strict):
    """What the latents of a set depend on."""

    format: Literal["moebius-latents-1"] = "moebius-latents-1"
    codec: str
    """Its name, for people; `codec_sha256` is what must match."""
    codec_sha256: str
    source: str
    """Of the photographs, for people; `records_sha256` is what must match."""
    records_sha256: str
    spec: dict[str, Any]
    """The `SampleSpec` of the draws, see `describe_spec`."""
    masks: PositiveInt
    """Draws of each photograph, each with a crop and a hole of its own: epochs of the stream."""
    draws: PositiveInt
    shard_draws: PositiveInt
    """Draws of every shard but the last."""

    @property
    def shards(self) -> int:
        """How many shards the set has."""
        return -(-self.draws // self.shard_draws)

    def numbers(self, shard: int) -> range:
        """The draws of a shard, by their number in the stream."""
        return range(shard * self.shard_draws, min(self.draws, (shard + 1) * self.shard_draws))


class Shard(Strict):
    """One file."""

    name: Annotated[str, Field(pattern=f"^{SHARD_NAME}$")]
    """Number and SHA-256."""
    bytes: PositiveInt
    draws: PositiveInt

    @property
    def sha256(self) -> str:
        """Of the whole file."""
        return self.name.partition("-")[2].partition(".")[0]


class Index(Strict):
    """A finished set."""

    encoding: Encoding
    shards: list[Shard]


def describe_encoding(
    samples: InpaintingSamples, codec: LatentCodec, source: str, masks: int, shard_draws: int
) -> Encoding:
    """What encoding the first `masks` epochs of a stream makes."""
    return Encoding(
        codec=codec.name,
        codec_sha256=codec.digest(),
        source=source,
        records_sha256=_records_digest(samples.records),
        spec=describe_spec(samples.spec),
        masks=masks,
        draws=masks * len(samples),
        shard_draws=shard_draws,
    )


def describe_spec(spec: SampleSpec) -> dict[str, Any]:
    """A spec as JSON keeps it."""
    return {**asdict(spec), "short_side": list(spec.short_sides)}


def shard_name(number: int, data: bytes) -> str:
    """Number and SHA-256: a listing says what is there, and a file what it must hold."""
    return f"{number:06d}-{hashlib.sha256(data).hexdigest()}.safetensors"


def read_index(storage: Storage) -> Index:
    """The index of a finished set.

    Raises:
        ValueError: it is missing, damaged, or does not hold every draw.
    """
    try:
        index = read_as(Index, storage, INDEX)
    except ValueError as error:
        raise ValueError(
            f"no latents to train on: {error}; `python -m moebius.encode` writes it at its end"
        ) from None
    counted = [len(index.encoding.numbers(n)) for n in range(index.encoding.shards)]
    if [shard.draws for shard in index.shards] != counted:
        raise ValueError(
            f"{storage.place}/{INDEX} lists other shards than its settings ask for: encode again"
        )
    return index


def read_as(model: type[Model], storage: Storage, name: str) -> Model:
    """A JSON file as a model.

    Raises:
        ValueError: it is missing, no JSON, or does not hold what the model asks for.
    """
    try:
        data = json.loads(storage.read(name))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ValueError(f"{name} at {storage.place} is damaged: no JSON object")
    return parse(model, data, f"{name} at {storage.place}")


def check_fit(index: Index, spec: SampleSpec, codec: LatentCodec, place: str) -> None:
    """Refuses latents of another codec, or drawn otherwise than the recipe says.

    The seed may differ: it says which draws they are, not of what kind.

    Raises:
        ValueError: everything that differs, in one line.
    """
    encoded, asked = index.encoding.spec, describe_spec(spec)
    keys = sorted((encoded.keys() | asked.keys()) - {"seed"})
    wrong = [
        f"data.{key}: encoded {encoded.get(key)}, recipe {asked.get(key)}"
        for key in keys
        if encoded.get(key) != asked.get(key)
    ]
    if index.encoding.codec_sha256 != codec.digest():
        wrong.append(
            f"codec: encoded by {index.encoding.codec}, recipe {codec.name}: other weights"
        )
    if wrong:
        raise ValueError(
            f"latents at {place} do not fit the recipe ({'; '.join(wrong)}): encode with this "
            "recipe, or train with theirs"
        )


def differing(known: Encoding, asked: Encoding) -> list[str]:
    """What two sets differ in, labels aside."""
    a, b = ({**e.model_dump(exclude={"codec", "source", "spec"}), **e.spec} for e in (known, asked))
    return [key for key in a | b if a.get(key) != b.get(key)]


def _records_digest(records: Sequence[Record]) -> str:
    """Names, not paths: a set may be encoded on from where its photographs were moved to."""
    digest = hashlib.sha256()
    for record in records:
        mask = None if record.mask is None else record.mask.name
        digest.update(json.dumps([record.name, mask, record.category]).encode())
    return digest.hexdigest()
