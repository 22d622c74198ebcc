"""POST /predict."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi import Request as HttpRequest

from branchtune.serving.admission import AdmittedRoute, held_until_sent
from branchtune.serving.answers import answer
from branchtune.serving.asked import Asked, tasks_asked_for
from branchtune.serving.json_pieces import json_pieces
from branchtune.serving.leaving import unless_gone
from branchtune.serving.problems import LOADING, Responses, problem
from branchtune.serving.schemas import Format, Prediction
from branchtune.serving.sending import PiecewiseResponse
from branchtune.serving.service import Service
from branchtune.serving.uploads import open_upload

router = APIRouter(route_class=AdmittedRoute)

CLIENT_CLOSED_REQUEST = 499  # seen by nobody
REFUSED: Responses = {
    **LOADING,
    **problem(400, "no multipart form"),
    **problem(408, "nothing of the request arrived for 30 seconds"),
    **problem(413, "too many bytes or pixels"),
    **problem(415, "no image"),
    **problem(422, "a damaged image, an unknown task or format, or too long an answer"),
}


@router.post("/predict", response_model=Prediction, responses=REFUSED)
async def predict(
    request: HttpRequest,
    image: Annotated[UploadFile, File(description="JPEG, PNG, WebP, TIFF or BMP")],
    tasks: Annotated[list[str] | None, Form(description="only these; the others are not computed")] = None,
    format: Annotated[Format, Form(description="of the outputs")] = "png",
    scores: Annotated[bool, Form(description="format npy and json: instead of classes the scores of each one")] = False,
) -> Response:
    """Apply the model to an image; predictions are at the image's own size."""
    service: Service = request.app.state.service
    served, held = service.served, held_until_sent(request)
    known = served.model.tasks
    asked = Asked(tasks_asked_for(tasks, known), format, scores)

    async def answered() -> Response:
        upload = await service.aside(open_upload, image.file, served, asked, service.limits.max_pixels)
        passed = await service.predict(asked.tasks, upload.image)
        await held.enter_async_context(service.answers)
        found = await service.aside(answer, known, asked, upload, passed)
        return PiecewiseResponse(json_pieces(found))

    return await unless_gone(request.receive, answered()) or Response(status_code=CLIENT_CLOSED_REQUEST)
