"""DataConfig: the settings of a training's images."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from sgformer.catalog import Preprocessing, Rgb
from sgformer.validation import FrozenConfig, SettingError

HASHING: Final = "hashing"
Byte = Annotated[int, Field(ge=0, le=255)]


class DataConfig(FrozenConfig):
    """The images and how they are read.

    Attributes:
        data_dir: The images: a folder of class folders, of tar shards or of parquet files; or a
            manifest.
        image_size: Side of the model's square input in pixels; for SG-Former a multiple of 32.
        crop_pct: timm's crop_pct: evaluation resizes an image to a shorter side of image_size /
            crop_pct pixels, and crops the centre. None: as the model was pretrained.
        decode_size: Shorter side in pixels to which images are decoded, at least image_size.
            Random crops are taken from the decoded image, so more pixels make small crops
            sharper. None: image_size / crop_pct; in a search, the largest that a trial needs.
        val_fraction: Share of each class's train images that becomes val, if there is no val
            folder.
        val_seed: Seed that chooses which train images become val.
        features: A table of the images' features, which the model takes beside the images: CSV or
            parquet with a column `path`, or npz with `names` and `vectors`.
        text_encoder: What encodes the table's column `text`: `hashing`, or the folder of an
            encoder of sentence-transformers. None: a text is a category.
        num_workers: Processes that load images; None chooses their number by the CPUs. Images
            and their augmentation do not depend on it.
        mean: Mean of each colour channel, 0..1, for normalisation. None: as the model was
            pretrained.
        std: Standard deviation of each colour channel (of values 0..1), for normalisation. None:
            as the model was pretrained.
        interpolation: How images are resized. None: as the model was pretrained.
        background: Red, green and blue, 0..255, of the colour on which transparent images are
            laid.
        max_value: The value that becomes 255 in images of more than 8 bits a channel, such as
            4095 for 12 bits. A PGM or PPM that declares another range keeps to that. None: the
            largest value of the smallest bit depth that holds the values of the train images.
        cache_dir: Folder of the caches of decoded images, on each node; None: `SGFORMER_CACHE`, or
            a local disk.
        cache_bytes: Largest size of all caches in that folder together; None for half of the
            disk space that is free or that they take. Images beyond this size are decoded each
            time they are needed.
        cache_format: How decoded images are stored: `raw` pixels, or as `jpeg`, a tenth of the
            size; `auto` takes raw pixels for a split whose pixels fill at most 8 GiB.
    """

    data_dir: Path | None = None
    image_size: int = Field(default=224, ge=1, le=4096, description="pixels")
    crop_pct: float | None = Field(default=None, ge=0.1, le=1)
    decode_size: int | None = Field(default=None, ge=1, le=8192, description="pixels")
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    val_seed: int = Field(default=0, ge=0)
    features: Path | None = None
    text_encoder: str | None = None
    num_workers: int | None = Field(default=None, ge=0, le=256)
    mean: Rgb | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    max_value: PositiveFloat | None = None
    cache_dir: Path | None = None
    cache_bytes: int | None = Field(default=None, ge=0)
    cache_format: Literal["auto", "raw", "jpeg"] = "auto"

    @model_validator(mode="after")
    def _encoder_is_known(self) -> Self:
        if self.text_encoder is not None and not self.text_encoder.strip():
            raise SettingError("text_encoder", f"takes {HASHING!r} or a folder, got an empty text")
        return self

    @model_validator(mode="after")
    def _is_decoded_large_enough(self) -> Self:
        if self.decode_size is not None and self.decode_size < self.image_size:
            raise SettingError(
                "decode_size",
                f"must be at least image_size={self.image_size}, got {self.decode_size}",
            )
        return self

    def for_decoding(self) -> Self:
        """A copy without the settings that only use decoded images: equal ones share them."""
        update: dict[str, object] = dict.fromkeys(
            ("crop_pct", "mean", "std", "interpolation", "num_workers")
        )
        update |= {"decode_size": self.decoded_pixels, "image_size": self.decoded_pixels}
        return self.model_copy(update=update)

    def at_places_of(self, other: Self) -> Self:
        """A copy with the folders, the cache and the loading processes of other settings."""
        names = (
            "data_dir", "features", "cache_dir", "cache_bytes", "cache_format", "num_workers",
        )  # fmt: skip
        return self.model_copy(update={name: getattr(other, name) for name in names})

    def with_preprocessing(self, own: Preprocessing) -> Self:
        """A copy in which a model's own preprocessing stands for what is not set."""
        missing = {name: v for name, v in asdict(own).items() if getattr(self, name) is None}
        return self.model_copy(update=missing)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of a resolved config (`TrainConfig.resolved`)."""
        values = (self.mean, self.std, self.interpolation, self.crop_pct)
        assert None not in values, "the config is not resolved"
        return Preprocessing(*values)  # type: ignore[arg-type]

    @property
    def decoded_pixels(self) -> int:
        """Pixels of a decoded image's shorter side, of a resolved config."""
        if self.decode_size is not None:
            return self.decode_size
        assert self.crop_pct is not None, "the config is not resolved"
        return int(self.image_size / self.crop_pct)


def encoder_folder(data: DataConfig) -> Path | None:
    """The folder of the encoder of texts; None: it has no folder, or there are no texts."""
    return None if data.text_encoder in (None, HASHING) else Path(str(data.text_encoder))
