"""What is written into a run: edits as frozen data, and the ordered plan that holds them.

Three verbs, one module each: :mod:`reroute` changes which experts a token uses, :mod:`skip` leaves parts of the model
out, :mod:`mask` silences units. Beside them, :func:`patch` takes values from another run and :func:`edit` makes an edit of
a function. Nothing here runs a model; :mod:`workbench.runtime` applies a plan.
"""

from workbench.interventions import mask, reroute, skip
from workbench.interventions.blob import Blob, blob
from workbench.interventions.edit import Edit, Span
from workbench.interventions.plan import Plan

from workbench.interventions.custom import custom, edit  # isort: skip (functions of the same name as their modules)
from workbench.interventions.patch import patch  # isort: skip

__all__ = ["Blob", "Edit", "Plan", "Span", "blob", "custom", "edit", "mask", "patch", "reroute", "skip"]
