"""Langflow's class for multi-vectors that vLLM serves (lfx-nextplaid), as it is.

python langflow_client.py URL KEY PAGE
"""

import json
import os
import sys

os.environ["LANGFLOW_SSRF_ALLOWED_HOSTS"] = "127.0.0.1"  # its guard refuses loopback otherwise

from lfx_nextplaid.components.nextplaid.vllm_multivector_impl import (
    VllmMultivectorEmbeddings,
)
from PIL import Image

url, key, file = sys.argv[1:]
model = VllmMultivectorEmbeddings(url, "bundled", key)
print(
    json.dumps(
        {
            "query": model.embed_query("night route"),
            "documents": model.embed_documents(["fares in 2024", "a"]),
            "pages": model.embed_images([Image.open(file)]),
        }
    )
)
