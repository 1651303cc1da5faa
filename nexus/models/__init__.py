"""The zoo. Importing it registers every variant, so that names can be looked up in `nexus.models.registry`."""

from nexus.models import cv
