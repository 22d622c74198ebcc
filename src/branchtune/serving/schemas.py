"""What the endpoints return; FastAPI writes the OpenAPI description from these classes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Format = Literal["png", "npy", "json"]
Number = int | float | None  # null where it is not finite
Map = list[list[Number]]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one line")


class Health(BaseModel):
    """Whether the server answers requests."""

    status: Literal["loading", "ready"]


class Versions(BaseModel):
    """Of the packages that run the model."""

    branchtune: str
    torch: str
    timm: str


class TaskDescription(BaseModel):
    """One task of the model."""

    name: str
    kind: Literal["classes", "values", "depth", "normals", "image"]
    channels: int = Field(description="C of the model's output, such as the number of classes")
    picture: str | None = Field(description="how to read its picture; null where there is none")
    classes: bool = Field(description="whether it predicts a class, of every pixel or of the image")
    scaled: bool = Field(description="whether its picture is dark and bright at the range of the image, low to high")


class ServerLimits(BaseModel):
    """What the server takes."""

    max_bytes: int = Field(description="of one request")
    max_pixels: int = Field(description="of one image")
    max_delay_ms: float = Field(description="how long a request waits for others to share a pass with")
    max_batch: int = Field(description="images in one pass")


class ModelDescription(BaseModel):
    """The model that is served."""

    name: str
    backbone: str
    device: str
    tasks: list[TaskDescription]
    tree: list[list[list[str]]] = Field(description="per level the groups of tasks that share adapters")
    image_size: tuple[int, int] = Field(description="height and width at which the model works, in pixels")
    versions: Versions
    limits: ServerLimits


class ExampleImage(BaseModel):
    """One of the images to try."""

    name: str
    url: str


class NodeTime(BaseModel):
    """One node of the tree that the request needed."""

    level: int
    tasks: list[str] = Field(description="of the node in the whole tree")
    ms: float = Field(description="an equal share of its level's time: the groups of a level are computed together")


class DecoderTime(BaseModel):
    """One task's decoder."""

    task: str
    ms: float


class Timing(BaseModel):
    """Wall time of the pass that the image was in, in milliseconds; all its images have the same tasks."""

    batch_size: int = Field(description="images in the pass")
    stem_ms: float = Field(description="what precedes the tree")
    levels_ms: list[float] = Field(description="per level, adapters included")
    nodes: list[NodeTime]
    decoders: list[DecoderTime]
    total_ms: float = Field(description="of the pass, without reading the image and making the answer")


class TaskOutput(BaseModel):
    """What the model predicts for one task, as `branchtune predict` writes it.

    Classes: their indices. Depth: metres. Normals: unit vectors. Binary maps, and the class of an image: probabilities.
    """

    shape: list[int] = Field(
        description="[H, W] of the image's own size, [C, H, W] for normals and scores, [C] for a task of kind image"
    )
    low: Number = Field(description="smallest element")
    high: Number = Field(description="largest element")
    png: str | None = Field(default=None, description="format png, and a map: its picture, base64")
    npy: str | None = Field(default=None, description="format npy: the array, a .npy file in base64")
    values: Map | list[Map] | list[Number] | None = Field(
        default=None, description="format json, and always for a task of kind image: nested lists"
    )


class Prediction(BaseModel):
    """The answer for one image."""

    width: int
    height: int
    image: str | None = Field(
        default=None, description="format png: the image as the model was given it, base64: JPEG, or PNG where too long"
    )
    tasks: dict[str, TaskOutput]
    timing: Timing
