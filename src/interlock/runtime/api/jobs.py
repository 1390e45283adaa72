"""The paths of jobs."""

from fastapi import APIRouter

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs")
