"""mteb's two classes for served models, as they are, and its evaluator over pages from a folder.

    python mteb_client.py URL KEY FOLDER

FOLDER has pages.json, [{"file": ..., "query": ...}, ...]: each query's page is the one beside it.
"""

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import mteb
import numpy as np
from datasets import Dataset, Image
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.openai_wrappers import OpenAIAPIRerankWrapper, OpenAIAPITokenEmbedWrapper
from PIL import Image as Pillow

from pagevec.engine.models.compat import import_torchvision

import_torchvision()  # before mteb imports sentence-transformers

url, key, folder = sys.argv[1:]
# Its first request, for the list of models, sends no key but the one in the address.
address = f"http://mteb:{key}@{urlsplit(url).netloc}"
rows = json.loads(Path(folder, "pages.json").read_text())
files = [str(Path(folder, row["file"])) for row in rows]


class Pages(AbsTaskRetrieval):
    """Which page has the words of the query?"""

    metadata = TaskMetadata(
        name="PagesOfOurOwn",
        description="Pages with a few words each.",
        reference=None,
        dataset={"path": "none", "revision": "1"},
        type="DocumentUnderstanding",
        category="t2i",
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def load_data(self, **_: object) -> None:
        """Read the pages of the folder."""
        corpus = Dataset.from_dict(
            {"id": [f"page-{n}" for n in range(len(rows))], "image": files}
        ).cast_column("image", Image())
        queries = Dataset.from_dict(
            {
                "id": [f"query-{n}" for n in range(len(rows))],
                "text": [row["query"] for row in rows],
            }
        )
        relevant = {f"query-{n}": {f"page-{n}": 1} for n in range(len(rows))}
        split = {
            "corpus": corpus,
            "queries": queries,
            "relevant_docs": relevant,
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


model = OpenAIAPITokenEmbedWrapper(address, "bundled", key, modalities=["text", "image"])
[text] = model._encode_texts([rows[0]["query"]])
page = model._encode_item(None, Pillow.open(files[0]).convert("RGB"), None, None)
reranker = OpenAIAPIRerankWrapper(address, "bundled", key)
documents = [
    reranker._to_score_input(None, Pillow.open(file).convert("RGB"), None, fps=None)
    for file in files[:4]
]
scores = reranker._rerank(rows[1]["query"], documents)
result = mteb.evaluate(model, Pages(), cache=None, show_progress_bar=False, co2_tracker=False)
[task] = result.task_results
print(
    json.dumps(
        {
            "shapes": [list(np.shape(text)), list(np.shape(page))],
            "best": int(np.argmax(scores)),
            "scores": [float(one) for one in scores],
            "ndcg_at_10": task.get_score(),
        }
    )
)
