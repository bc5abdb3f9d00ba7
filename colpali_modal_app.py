"""Your deployment to Modal: copy this file, edit the values, `modal deploy colpali_modal_app.py`.

docs/modal.md lists all settings. Environment variables take precedence over this file.
"""

import os

SETTINGS = {
    "PAGEVEC_MODEL": "tsystems/colqwen2.5-3b-multilingual-v1.0",
    "PAGEVEC_MODAL_GPU": "A10G",
    "PAGEVEC_MODAL_MAX_CONTAINERS": "5",
    "PAGEVEC_MODAL_SCALEDOWN_WINDOW": "300",  # seconds until an idle container stops; billed too
    "PAGEVEC_MODAL_LABEL": "embeddings",  # https://<workspace>--<label>.modal.run
}
os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})

from pagevec.deploy.modal.app import app, download, embed  # noqa: E402 - reads the values above

__all__ = ["app", "download", "embed"]
