"""The model in training: fed with grey patches, and with equal windows in one batch."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pagevec.engine.models.compat import import_torchvision
from training.architecture import make_config, make_tokenizer
from training.crops import LETTERS, PATCH, POINTS
from training.initial import look_at_neighbours

# Those of the image processor, which computes (value - mean) / deviation for each channel.
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
_DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
_GREY_MEAN, _GREY_DEVIATION = float(_LUMINANCE @ _MEAN), 0.27

AUGMENTATION = 10  # tokens that colpali-engine appends to a query
SPELLED_FIRST, SPELLED_LAST = 7, 4  # letters of a word that a cell's vector has to spell


class GreyPatches(nn.Module):
    """Embeds grey patches (n, 196) as (n, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(PATCH * PATCH, hidden, bias=False)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.proj(patches)

    def as_convolution(self) -> torch.Tensor:
        """Return this map for normalised RGB in two frames: weights (hidden, 3, 2, 14, 14)."""
        weight = self.proj.weight.view(-1, 1, 1, PATCH, PATCH)
        share = (_LUMINANCE * _DEVIATION / _GREY_DEVIATION / 2).view(1, 3, 1, 1, 1)
        return (weight * share).expand(-1, -1, 2, -1, -1)


class Reader(nn.Module):
    """ColQwen2.5 and the heads that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        import_torchvision()
        from colpali_engine.models import ColQwen2_5
        from transformers import AttentionInterface

        AttentionInterface.register("flash_equal_windows", _windows_at_once)
        self.tokenizer = make_tokenizer()
        config = make_config(self.tokenizer)
        self.model = ColQwen2_5(config)
        hidden = config.vision_config.hidden_size
        self.model.visual.patch_embed = GreyPatches(hidden)
        look_at_neighbours(self.model)
        self.model.visual.config._attn_implementation = "flash_equal_windows"
        self.letters = nn.Linear(hidden, POINTS * len(LETTERS))
        self.spelling = nn.Linear(128, (SPELLED_FIRST + SPELLED_LAST) * len(LETTERS))
        ids = self.tokenizer.encode("<|im_start|>user\n<|vision_start|>")
        self.register_buffer("before", torch.tensor(ids), persistent=False)
        ids = self.tokenizer.encode("<|vision_end|>Describe the image.<|im_end|><|endoftext|>")
        self.register_buffer("after", torch.tensor(ids), persistent=False)
        self._end = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    def pages(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed uint8 (pages, height, width).

        Returns:
            Vectors (pages, tokens, 128) of the cells, row by row, and then of the prompt; and
            letter logits (pages, rows, columns, points, letters) of the vision tower's last layer.
        """
        seen, logits = self._read(pixels)
        count, rows, columns = logits.shape[:3]
        cells = seen.view(count, rows * columns // 4, -1)
        embed = self.model.get_input_embeddings()
        before, after = (embed(t).expand(count, -1, -1) for t in (self.before, self.after))
        places = _places(len(self.before), rows // 2, columns // 2, len(self.after))
        vectors = self._language(torch.cat([before, cells, after], 1), places.expand(-1, count, -1))
        cells_and_after = vectors[:, len(self.before) :]
        return torch.cat([cells_and_after, vectors[:, : len(self.before)]], 1), logits

    def letter_logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the letter logits alone, without the language model."""
        return self._read(pixels)[1]

    def texts(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
        """Embed queries; return vectors (texts, tokens, 128), their mask, and where words end.

        The mask covers the augmentation tokens; a word ends at the token after its last letter.
        """
        encoded = [self.tokenizer.encode(text) for text in texts]
        longest = max(map(len, encoded)) + AUGMENTATION
        tokens = torch.full((len(texts), longest), self._end)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        space = self.tokenizer.encode(" ")[0]
        ends = []
        for row, ids in enumerate(encoded):
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids) + AUGMENTATION] = True
            ends.append([n for n, token in enumerate(ids) if token == space] + [len(ids)])
        places = torch.arange(longest).expand(3, len(texts), -1)
        return self._language(self.model.get_input_embeddings()(tokens), places), mask, ends

    def _read(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count, height, width = pixels.shape
        rows, columns = height // PATCH, width // PATCH
        grid = torch.tensor([[1, rows, columns]] * count)
        seen = self.model.visual(as_patches(pixels), grid_thw=grid)
        patches = self.model.visual.merger.ln_q(self._in_order(seen.last_hidden_state, grid))
        logits = self.letters(patches).view(count, rows // 2, columns // 2, 2, 2, POINTS, -1)
        logits = logits.transpose(2, 3).reshape(count, rows, columns, POINTS, -1)
        return seen.pooler_output, logits

    def _language(self, embedded: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        out = self.model.language_model(
            inputs_embeds=embedded, position_ids=places, use_cache=False
        )
        return functional.normalize(self.model.custom_text_proj(out.last_hidden_state), dim=-1)

    def _in_order(self, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        from transformers.vision_utils import get_vision_window_index

        index, _ = get_vision_window_index(
            grid,
            spatial_merge_size=2,
            window_size=self.model.visual.window_size,
            patch_size=PATCH,
            kwargs={},
        )
        return patches.view(-1, 4, patches.shape[-1])[torch.argsort(index)]


def as_patches(pixels: torch.Tensor) -> torch.Tensor:
    """Cut uint8 (n, height, width) into normalised patches (patches, 196), cell by cell."""
    count, height, width = pixels.shape
    grey = (pixels.float() / 255 - _GREY_MEAN) / _GREY_DEVIATION
    cut = grey.view(count, height // 28, 2, PATCH, width // 28, 2, PATCH)
    return cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, PATCH * PATCH)


def _places(before: int, rows: int, columns: int, after: int) -> torch.Tensor:
    """Return positions for M-RoPE, (3, 1, tokens): time, row, column."""
    cell = torch.arange(rows * columns)
    page = torch.stack([torch.zeros_like(cell), cell // columns, cell % columns]) + before
    start = before + max(rows, columns)
    ends = torch.arange(before).expand(3, -1), torch.arange(start, start + after).expand(3, -1)
    return torch.cat([ends[0], page, ends[1]], 1)[:, None]


def _windows_at_once(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, scaling: Any = None,
    cu_seq_lens_q: Any = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attend within windows: in one batch where all are equal, else one after the other."""
    lengths = (cu_seq_lens_q[1:] - cu_seq_lens_q[:-1]).tolist()
    if len(set(lengths)) == 1:
        count, heads = len(lengths), query.shape[1]
        split = [
            x[0].view(heads, count, lengths[0], -1).transpose(0, 1) for x in (query, key, value)
        ]
        out = functional.scaled_dot_product_attention(*split, scale=scaling)
        return out.transpose(1, 2).reshape(1, count * lengths[0], heads, -1), None
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    outs = [
        functional.scaled_dot_product_attention(*p, scale=scaling).transpose(1, 2) for p in parts
    ]
    return torch.cat(outs, dim=1), None
