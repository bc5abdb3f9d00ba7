"""OpenAI's client: the list of models, multi-vectors, and what it raises.

python openai_client.py URL KEY
"""

import json
import sys

import openai

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
found = client.embeddings.create(
    model="bundled",
    input=["night route", "fares in 2024"],
    extra_body={"return_multivector": True},
)
refusals = []
for model, multi in (("bundled", False), ("gpt-4", True)):
    try:
        client.embeddings.create(
            model=model, input="a", extra_body={"return_multivector": True} if multi else {}
        )
    except openai.APIStatusError as error:
        refusals.append([type(error).__name__, str(error.body)])
print(
    json.dumps(
        {
            "models": [one.id for one in client.models.list()],
            "vectors": [one.embedding for one in found.data],
            "tokens": found.usage.total_tokens,
            "refusals": refusals,
        }
    )
)
