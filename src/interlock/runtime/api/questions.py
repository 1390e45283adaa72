"""The paths of questions."""

from fastapi import APIRouter

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs")
