"""The endpoints."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, HTTPException, Response, UploadFile
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray

from branchtune.errors import unknown
from branchtune.pictures.encoding import image_bytes
from branchtune.run.inference import prepared
from branchtune.serving.lengths import check_length
from branchtune.serving.reading import read_upload
from branchtune.serving.schemas import ExampleImage, Format, Health, ModelDescription, Prediction, Problem
from branchtune.serving.served import Request
from branchtune.serving.service import Service

router = APIRouter()

JPEG_SIDE = 65_500  # pixels, the most that Pillow writes
Responses = dict[int | str, dict[str, Any]]
LOADING: Responses = {503: {"model": Problem, "description": "loading, or busy: see Retry-After"}}
REFUSED: Responses = {
    **LOADING,
    400: {"model": Problem, "description": "no multipart form"},
    413: {"model": Problem, "description": "too many bytes or pixels"},
    415: {"model": Problem, "description": "no image"},
    422: {
        "model": Problem,
        "description": "a damaged image, an unknown task or format, or an answer too long for JSON",
    },
}


def _service(request: HttpRequest) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/health")
async def health(request: HttpRequest) -> Health:
    """Whether the model is loaded; answers at once."""
    return Health(status="ready" if _service(request).ready else "loading")


@router.get("/model", responses=LOADING)
async def model(request: HttpRequest) -> ModelDescription:
    """Tasks, tree, image size, versions and limits."""
    service = _service(request)
    return service.served.describe(service.limits)


@router.get("/examples", responses=LOADING)
async def examples(request: HttpRequest) -> list[ExampleImage]:
    """Images to try."""
    found = enumerate(_service(request).served.examples)
    return [ExampleImage(name=example.name, url=f"examples/{index}") for index, example in found]


@router.get(
    "/examples/{index}",
    response_class=Response,
    responses={
        **LOADING,
        200: {"content": {"image/*": {}}},
        404: {"model": Problem, "description": "no such example"},
        422: {"model": Problem, "description": "not a number"},
    },
)
async def example(request: HttpRequest, index: int) -> Response:
    """One of them, as a file."""
    found = _service(request).served.examples
    if not 0 <= index < len(found):
        raise HTTPException(404, f"there is no example {index}: there are {len(found)}, from 0")
    try:
        data = await run_in_threadpool(found[index].read)
    except OSError as error:
        raise HTTPException(404, f"example {index} cannot be read any more ({error.strerror})") from error
    return Response(data, media_type=found[index].media_type)


@router.post("/predict", response_model=Prediction, responses=REFUSED)
async def predict(
    request: HttpRequest,
    image: Annotated[UploadFile, File(description="JPEG, PNG, WebP, TIFF or BMP")],
    tasks: Annotated[list[str] | None, Form(description="only these; the others are not computed")] = None,
    format: Annotated[Format, Form(description="of the outputs")] = "png",
    scores: Annotated[bool, Form(description="format npy and json: instead of classes the scores of each one")] = False,
) -> Response:
    """Apply the model to an image; predictions are at the image's own size."""
    service = _service(request)
    served = service.served
    known = served.model.tasks
    wanted = tasks or list(known)
    for name in wanted:
        if name not in known:
            raise HTTPException(422, str(unknown("task", name, known)))
    data = await image.read()
    pixels = await run_in_threadpool(read_upload, data, service.limits.max_pixels)
    size = (pixels.shape[0], pixels.shape[1])
    if format != "png":
        check_length([known[name] for name in set(wanted)], size, format, scores)
    tensor = await run_in_threadpool(prepared, pixels, served.transform)
    seen = await run_in_threadpool(_seen, pixels) if format == "png" else None
    del data, pixels  # many requests may wait
    prediction = await service.predict(wanted, Request(tensor, size, format, scores))
    prediction = prediction.model_copy(update={"image": seen})
    return Response(await run_in_threadpool(prediction.model_dump_json), media_type="application/json")


def _seen(pixels: NDArray[np.uint8]) -> str:
    if max(pixels.shape) > JPEG_SIDE:
        return b64encode(image_bytes(pixels, "PNG")).decode()
    return b64encode(image_bytes(pixels, "JPEG", quality=90)).decode()
